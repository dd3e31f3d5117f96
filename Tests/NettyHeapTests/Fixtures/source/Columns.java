import java.util.ArrayList;
import java.util.List;
import org.apache.arrow.memory.ArrowBuf;
import org.apache.arrow.memory.BufferAllocator;
import org.apache.arrow.memory.RootAllocator;

/** Arrow, which allocates by Netty and has books of its own: what they say is printed, an independent count. */
public final class Columns {
    static final List<ArrowBuf> KEPT = new ArrayList<>();
    static BufferAllocator keeping;
    static BufferAllocator losing;

    static void lose(int count, int bytes) {
        for (int i = 0; i < count; i++) losing.buffer(bytes);
    }

    public static void main(String[] arguments) throws Exception {
        RootAllocator root = new RootAllocator();
        keeping = root.newChildAllocator("keeping", 0, Long.MAX_VALUE);
        losing = root.newChildAllocator("losing", 0, Long.MAX_VALUE);
        for (int i = 0; i < 25; i++) {
            KEPT.add(keeping.buffer(3000));
            lose(2, 5000);
        }
        for (int i = 0; i < 3; i++) {
            KEPT.add(keeping.buffer(200_000));
            lose(1, 300_000);
        }
        List<ArrowBuf> freed = new ArrayList<>();
        for (int i = 0; i < 10; i++) freed.add(keeping.buffer(10_000));
        for (ArrowBuf one : freed) one.close();
        System.out.println("kept " + keeping.getAllocatedMemory());
        System.out.println("lost " + losing.getAllocatedMemory());
        System.out.println("ready");
        System.in.read();
        System.exit(0);
    }
}
