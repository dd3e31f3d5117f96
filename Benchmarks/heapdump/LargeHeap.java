import io.netty.buffer.ByteBuf;
import io.netty.buffer.PooledByteBufAllocator;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/**
 * A Java heap as a server has it: sessions with strings, maps, lists and a direct buffer each, and some large arrays.
 *
 *     java -cp ... LargeHeap SESSIONS
 *
 * Prints "ready" and waits for a line, while somebody takes the dump.
 */
public final class LargeHeap {
    static final class Session {
        final String client;
        final Map<String, Object> properties = new HashMap<>();
        final List<Object> queue = new ArrayList<>();
        byte[] window;
        ByteBuf pending;

        Session(int number) { client = "device-" + number; }
    }

    static final Map<String, Session> SESSIONS = new HashMap<>();

    public static void main(String[] arguments) throws Exception {
        PooledByteBufAllocator allocator = PooledByteBufAllocator.DEFAULT;
        int count = Integer.parseInt(arguments[0]);
        for (int i = 0; i < count; i++) {
            Session session = new Session(i);
            for (int k = 0; k < 4; k++) session.properties.put("key-" + k, "value " + i + " " + k);
            for (int k = 0; k < 3; k++) session.queue.add(new long[] {i, k, 7});
            session.window = new byte[512 + i % 1024];
            // One session in eight holds a buffer, one in sixteen has forgotten one.
            if (i % 8 == 0) session.pending = allocator.directBuffer(200);
            if (i % 16 == 1) allocator.directBuffer(1000);
            SESSIONS.put(session.client, session);
        }
        System.out.println("ready");
        System.in.read();
    }
}
