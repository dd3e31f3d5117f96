import io.netty.buffer.ByteBuf;
import io.netty.buffer.ByteBufAllocator;
import io.netty.buffer.PooledByteBufAllocator;
import io.netty.buffer.UnpooledByteBufAllocator;
import io.netty.util.concurrent.FastThreadLocalThread;
import io.netty.util.internal.PlatformDependent;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;

/**
 * Keeps, loses and frees buffers in known numbers, and prints what Netty itself counts.
 *
 *     java -cp ... Ledger pooled|adaptive
 *
 * It stops after the first round and after the second, which does the same again, for whoever takes a dump, until it
 * reads a line. No lambdas, no management beans: the classes they bring would be most of a small dump.
 */
public final class Ledger {
    static final List<ByteBuf> KEPT = new ArrayList<>();
    /** A session as a program has it, so that holders have a name. */
    static final class Session {
        final List<ByteBuf> queue = new ArrayList<>();
        ByteBuf pending;
    }
    static final Session SESSION = new Session();
    static ByteBuf huge;
    static ByteBufAllocator allocator;
    static final ByteBufAllocator UNPOOLED = new UnpooledByteBufAllocator(true, true);

    static void lose(int count, int bytes) {
        for (int i = 0; i < count; i++) allocator.directBuffer(bytes);
    }

    static void free(int count, int bytes) {
        List<ByteBuf> all = new ArrayList<>();
        for (int i = 0; i < count; i++) all.add(allocator.directBuffer(bytes));
        for (ByteBuf one : all) one.release();
    }

    /** Alternating, so that what is lost has living neighbours. */
    static void round() {
        for (int i = 0; i < 20; i++) {
            KEPT.add(allocator.directBuffer(100));
            lose(2, 100);
            SESSION.queue.add(allocator.directBuffer(1000));
            lose(1, 1000);
        }
        for (int i = 0; i < 3; i++) {
            KEPT.add(allocator.directBuffer(20_000));
            lose(1, 20_000);
            free(1, 20_000);
            KEPT.add(allocator.directBuffer(100_000));
            lose(1, 70_000);
        }
        free(10, 5_000);
    }

    static void print(String name, long value) { System.out.println(name + " " + value); }

    static void facts(String when) {
        System.out.println("round " + when);
        print("counter", PlatformDependent.usedDirectMemory());
        print("limit", PlatformDependent.maxDirectMemory());
        if (allocator instanceof PooledByteBufAllocator) {
            PooledByteBufAllocator pooled = (PooledByteBufAllocator) allocator;
            print("chunk_size", pooled.metric().chunkSize());
            print("used_direct_memory", pooled.metric().usedDirectMemory());
            for (io.netty.buffer.PoolArenaMetric arena : pooled.metric().directArenas()) {
                print("arena_active_bytes", arena.numActiveBytes());
                print("arena_active_allocations", arena.numActiveAllocations());
                print("arena_active_huge", arena.numActiveHugeAllocations());
            }
            try {
                print("pinned", (Long) PooledByteBufAllocator.class.getMethod("pinnedDirectMemory").invoke(pooled));
            } catch (ReflectiveOperationException e) {
                System.out.println("pinned unknown");
            }
        } else {
            print("used_direct_memory",
                ((io.netty.buffer.ByteBufAllocatorMetricProvider) allocator).metric().usedDirectMemory());
        }
    }

    public static void main(String[] arguments) throws Exception {
        if (arguments[0].equals("pooled")) {
            // One arena with chunks of 1 MiB, and caches for all threads.
            allocator = new PooledByteBufAllocator(true, 0, 1, 8192, 7, 16, 16, true);
        } else {
            allocator = (ByteBufAllocator) Class.forName("io.netty.buffer.AdaptiveByteBufAllocator")
                .getConstructor(boolean.class, boolean.class).newInstance(true, true);
        }
        final CountDownLatch worked = new CountDownLatch(1);
        final CountDownLatch never = new CountDownLatch(1);
        // A thread with a cache or a magazine of its own: it keeps 5 buffers, loses 7, and frees 10.
        Thread worker = new FastThreadLocalThread(new Runnable() { @Override public void run() {
            List<ByteBuf> mine = new ArrayList<>();
            for (int i = 0; i < 5; i++) {
                mine.add(allocator.directBuffer(300));
                lose(1, 300);
            }
            lose(2, 300);
            free(10, 300);
            synchronized (KEPT) { KEPT.addAll(mine); }
            worked.countDown();
            try { never.await(); } catch (InterruptedException e) { }
        } }, "worker");
        worker.setDaemon(true);
        worker.start();
        worked.await();
        SESSION.pending = UNPOOLED.directBuffer(700);
        UNPOOLED.directBuffer(900);
        huge = allocator.directBuffer(9_000_000);
        lose(2, 12_000_000);
        round();
        facts("early");
        System.in.read();
        round();
        facts("late");
        System.in.read();
        System.exit(0);
    }
}
