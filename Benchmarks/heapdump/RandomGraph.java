import io.netty.buffer.ByteBuf;
import io.netty.buffer.PooledByteBufAllocator;
import java.util.Random;

/**
 * A heap in which references lead all over: each object refers to three that are chosen at random.
 *
 *     java -cp ... RandomGraph OBJECTS
 *
 * Prints "ready" and waits for a line, while somebody takes the dump.
 */
public final class RandomGraph {
    static final class Node {
        Node left, middle, right;
        long number;
    }

    static Node root;
    static ByteBuf kept;

    public static void main(String[] arguments) throws Exception {
        int count = Integer.parseInt(arguments[0]);
        Random random = new Random(1);
        Node[] all = new Node[count];
        for (int i = 0; i < count; i++) {
            all[i] = new Node();
            all[i].number = i;
        }
        for (Node node : all) {
            node.left = all[random.nextInt(count)];
            node.middle = all[random.nextInt(count)];
            node.right = all[random.nextInt(count)];
        }
        root = all[0];
        kept = PooledByteBufAllocator.DEFAULT.directBuffer(100);
        for (int i = 0; i < 50; i++) PooledByteBufAllocator.DEFAULT.directBuffer(1000);
        all = null;
        System.out.println("ready");
        System.in.read();
    }
}
