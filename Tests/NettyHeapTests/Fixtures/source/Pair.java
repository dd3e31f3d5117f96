import java.io.File;
import java.net.URL;
import java.net.URLClassLoader;
import java.util.ArrayList;
import java.util.List;

/**
 * Copies of Netty in one process, each by a class loader of its own, whether in one package or in several.
 *
 *     java Pair CLASS_PATH,KEPT,LOST,BYTES ...
 *
 * Each class path has a Part, which says what it does with its copy.
 */
public final class Pair {
    static final List<Object> PARTS = new ArrayList<>();

    public static void main(String[] arguments) throws Exception {
        for (String argument : arguments) {
            String[] words = argument.split(",");
            List<URL> urls = new ArrayList<>();
            for (String path : words[0].split(":")) urls.add(new File(path).toURI().toURL());
            System.out.println("copy " + PARTS.size());
            System.setProperty("kept", words[1]);
            System.setProperty("lost", words[2]);
            System.setProperty("bytes", words[3]);
            ClassLoader loader = new URLClassLoader(urls.toArray(new URL[0]), ClassLoader.getSystemClassLoader());
            Runnable part = (Runnable) loader.loadClass("Part").getDeclaredConstructor().newInstance();
            part.run();
            PARTS.add(part);
        }
        System.out.println("ready");
        System.in.read();
        System.exit(0);
    }
}
