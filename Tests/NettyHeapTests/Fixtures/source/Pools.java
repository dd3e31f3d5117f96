import io.netty.buffer.ByteBuf;
import io.netty.buffer.PoolArenaMetric;
import io.netty.buffer.PoolChunkListMetric;
import io.netty.buffer.PoolChunkMetric;
import io.netty.buffer.PooledByteBufAllocator;
import io.netty.util.concurrent.FastThreadLocalThread;
import java.io.File;
import java.io.RandomAccessFile;
import java.lang.reflect.Field;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicLong;

/**
 * Pooled arenas after a peak, direct and on the Java heap, and direct memory that is not Netty's.
 *
 * Chunks are of 1 MiB. At the peak 128 buffers of 64 KiB fill eight of them, and the thread "io-2" has 40 of 16 KiB in a
 * ninth. What is left of it:
 *
 *     chunk 0: one buffer, static Pools.REGISTRY       chunk 2: two, Pools$Session.queue
 *     chunk 4: one, static Pools.REGISTRY              chunk 6: one that was dropped without release
 *     chunk 8: 16 of 16 KiB in the cache of "io-2"     the others went back
 *
 * A second allocator had one buffer, and gave it back: its chunk is empty, in qInit. On the Java heap 64 buffers filled four
 * chunks: one is left in the first (Pools$Session.pending), one was dropped in the second, two are left in the third
 * (static Pools.KEPT).
 */
public final class Pools {
    static final class Session {
        final List<ByteBuf> queue = new ArrayList<>();
        ByteBuf pending;
    }
    static final class Segment {
        final ByteBuffer memory;
        Segment(int bytes) { memory = ByteBuffer.allocateDirect(bytes); }
    }
    static final class View {
        ByteBuffer part;
    }
    static final class SegmentPool {
        final ByteBuffer[] segments = new ByteBuffer[10];
    }
    static final Session SESSION = new Session();
    static final Map<String, ByteBuf> REGISTRY = new HashMap<>();
    static final List<ByteBuf> KEPT = new ArrayList<>();
    static final List<Segment> SEGMENTS = new ArrayList<>();
    static final SegmentPool POOL = new SegmentPool();
    static final View VIEW = new View();

    static void run(String name, final Runnable first, final CountDownLatch until) throws InterruptedException {
        final CountDownLatch done = new CountDownLatch(1);
        Thread thread = new FastThreadLocalThread(new Runnable() { @Override public void run() {
            first.run();
            done.countDown();
            try { until.await(); } catch (InterruptedException e) { }
        } }, name);
        thread.setDaemon(true);
        thread.start();
        done.await();
    }

    static void directPeak(final PooledByteBufAllocator allocator, CountDownLatch never) throws InterruptedException {
        ByteBuf[] all = new ByteBuf[128];
        for (int i = 0; i < all.length; i++) all[i] = allocator.directBuffer(65536);
        run("io-2", new Runnable() { @Override public void run() {
            List<ByteBuf> mine = new ArrayList<>();
            for (int i = 0; i < 40; i++) mine.add(allocator.directBuffer(16384));
            for (ByteBuf one : mine) one.release();
        } }, never);
        REGISTRY.put("first", all[0]);
        SESSION.queue.add(all[33]);
        SESSION.queue.add(all[34]);
        REGISTRY.put("second", all[70]);
        for (int i = 0; i < all.length; i++) {
            if (i != 0 && i != 33 && i != 34 && i != 70 && i != 100) all[i].release();
        }
    }

    static void heapPeak(PooledByteBufAllocator allocator) {
        ByteBuf[] all = new ByteBuf[64];
        for (int i = 0; i < all.length; i++) all[i] = allocator.heapBuffer(65536);
        SESSION.pending = all[5];
        KEPT.add(all[40]);
        KEPT.add(all[41]);
        for (int i = 0; i < all.length; i++) {
            if (i != 5 && i != 20 && i != 40 && i != 41) all[i].release();
        }
    }

    static void print(String whose, List<PoolArenaMetric> arenas) {
        for (PoolArenaMetric arena : arenas) {
            StringBuilder line = new StringBuilder(whose);
            // A chunk that two lists are asked for at their common border is in one of them.
            for (PoolChunkListMetric list : arena.chunkLists()) {
                for (PoolChunkMetric chunk : list) {
                    line.append(" [").append(list.minUsage()).append(' ').append(list.maxUsage()).append(": ")
                        .append(chunk.chunkSize() - chunk.freeBytes()).append(" used]");
                }
            }
            System.out.println(line);
        }
    }

    /** Leaves what the JDK keeps for a thread that writes a buffer of the Java heap. */
    static void writeFile() throws Exception {
        File file = new File("pools.tmp");
        try (RandomAccessFile open = new RandomAccessFile(file, "rw")) {
            open.getChannel().write(ByteBuffer.allocate(20_000));
        }
        file.delete();
    }

    public static void main(String[] arguments) throws Exception {
        CountDownLatch never = new CountDownLatch(1);
        PooledByteBufAllocator direct = new PooledByteBufAllocator(true, 0, 1, 8192, 7, 16, 16, false);
        directPeak(direct, never);
        PooledByteBufAllocator idle = new PooledByteBufAllocator(true, 0, 1, 8192, 7, 0, 0, false);
        idle.directBuffer(40_000).release();
        PooledByteBufAllocator heap = new PooledByteBufAllocator(false, 1, 0, 8192, 7, 0, 0, false);
        heapPeak(heap);
        for (int i = 0; i < POOL.segments.length; i++) POOL.segments[i] = ByteBuffer.allocateDirect(32_768);
        for (int i = 0; i < 5; i++) SEGMENTS.add(new Segment(100_000));
        VIEW.part = ByteBuffer.allocateDirect(50_000).position(100).slice();
        writeFile();
        ByteBuffer local = ByteBuffer.allocateDirect(7_000);
        print("direct", direct.metric().directArenas());
        print("idle", idle.metric().directArenas());
        print("heap", heap.metric().heapArenas());
        Field field = Class.forName("java.nio.Bits").getDeclaredField("RESERVED_MEMORY");
        field.setAccessible(true);
        System.out.println("reserved " + ((AtomicLong) field.get(null)).get());
        System.out.println("ready");
        System.in.read();
        local.put(0, (byte) 1);
        System.out.println(direct + "" + idle + heap);
    }
}
