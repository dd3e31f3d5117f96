import io.netty.buffer.ByteBuf;
import io.netty.buffer.ByteBufAllocator;
import io.netty.buffer.PooledByteBufAllocator;
import io.netty.buffer.Unpooled;
import io.netty.buffer.UnpooledByteBufAllocator;
import io.netty.util.internal.PlatformDependent;
import java.lang.ref.SoftReference;
import java.lang.ref.WeakReference;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;

/**
 * Keeps and loses known numbers of buffers in the ways that programs of the field do, and prints what it did.
 *
 *     java -cp ... Field pooled|unpooled|adaptive|default [self FILE | oom | live PARKED_VIRTUAL_THREADS]
 *
 * Without more it waits for whoever takes a dump, until it reads a line. `self` has the JVM dump all objects through its
 * management bean, without a collection; `oom` has it run out of heap (-XX:+HeapDumpOnOutOfMemoryError).
 * Each way has a size of its own, so that a dump's rows can be told apart:
 *
 *     kept in a list 20 x 100, in a large array 7 x 5000, on a thread's stack 3 x 40000, in a thread-local 2 x 3000,
 *     softly 2 x 9000, as a slice of what nobody else has 4 x 2500, one huge of 20000000, unpooled 2 x 700, and around the
 *     program's own java.nio.ByteBuffer one of 1000000
 *     lost: 40 x 200, 12 x 6000, 5 x 50000, one that is weakly referred to of 1200, 2 slices of 3500, 2 huge of 17000000,
 *     unpooled 3 x 900
 *     freed: 15 x 150, 5 x 7000, one huge of 18000000
 */
public final class Field {
    static final List<ByteBuf> KEPT = new ArrayList<>();
    static final ByteBuf[] ARRAY = new ByteBuf[100_000];
    static final List<Object> REFERENCES = new ArrayList<>();
    static final ThreadLocal<ByteBuf[]> LOCAL = new ThreadLocal<>();
    static ByteBufAllocator allocator;
    static ByteBufAllocator unpooled;
    static final CountDownLatch NEVER = new CountDownLatch(1);
    static volatile int sink;

    static void lose(int count, int bytes) {
        for (int i = 0; i < count; i++) allocator.directBuffer(bytes).writeByte(i);
    }

    static void free(int count, int bytes) {
        List<ByteBuf> all = new ArrayList<>();
        for (int i = 0; i < count; i++) all.add(allocator.directBuffer(bytes));
        for (ByteBuf one : all) one.release();
    }

    static void work() {
        for (int i = 0; i < 20; i++) {
            KEPT.add(allocator.directBuffer(100));
            lose(2, 200);
        }
        for (int i = 0; i < 7; i++) {
            ARRAY[i * 14_000 + 99] = allocator.directBuffer(5000);
            lose(1, 6000);
        }
        lose(5, 6000);
        lose(5, 50_000);
        for (int i = 0; i < 2; i++) REFERENCES.add(new SoftReference<>(allocator.directBuffer(9000)));
        REFERENCES.add(new WeakReference<>(allocator.directBuffer(1200)));
        for (int i = 0; i < 4; i++) KEPT.add(allocator.directBuffer(2500).writeZero(2000).readSlice(1000));
        for (int i = 0; i < 2; i++) allocator.directBuffer(3500).writeZero(2000).readSlice(1000);
        KEPT.add(allocator.directBuffer(20_000_000));
        lose(2, 17_000_000);
        for (int i = 0; i < 2; i++) KEPT.add(unpooled.directBuffer(700));
        for (int i = 0; i < 3; i++) unpooled.directBuffer(900);
        KEPT.add(Unpooled.wrappedBuffer(ByteBuffer.allocateDirect(1_000_000)));
        free(15, 150);
        free(5, 7000);
        free(1, 18_000_000);
    }

    /** Buffers that only its stack and its thread-local lead to. */
    static final class Holding implements Runnable {
        final CountDownLatch done = new CountDownLatch(1);

        @Override public void run() {
            ByteBuf first = allocator.directBuffer(40_000);
            ByteBuf second = allocator.directBuffer(40_000);
            ByteBuf third = allocator.directBuffer(40_000);
            LOCAL.set(new ByteBuf[] {allocator.directBuffer(3000), allocator.directBuffer(3000)});
            done.countDown();
            try { NEVER.await(); } catch (InterruptedException e) { }
            sink += first.refCnt() + second.refCnt() + third.refCnt();
        }
    }

    /** A virtual thread that has one buffer of 30000 on its stack, or had one that it released. */
    static final class Virtual implements Runnable {
        final CountDownLatch done = new CountDownLatch(1);
        final boolean stays;

        Virtual(boolean stays) { this.stays = stays; }

        @Override public void run() {
            ByteBuf buffer = allocator.directBuffer(30_000);
            done.countDown();
            try { if (stays) NEVER.await(); } catch (InterruptedException e) { }
            sink += buffer.refCnt();
            buffer.release();
        }
    }

    static void print(String name, long value) { System.out.println(name + " " + value); }

    static void facts() throws Exception {
        print("counter", PlatformDependent.usedDirectMemory());
        print("limit", PlatformDependent.maxDirectMemory());
        if (allocator instanceof PooledByteBufAllocator) {
            PooledByteBufAllocator pooled = (PooledByteBufAllocator) allocator;
            print("chunk_size", pooled.metric().chunkSize());
            print("used_direct_memory", pooled.metric().usedDirectMemory());
            for (io.netty.buffer.PoolArenaMetric arena : pooled.metric().directArenas()) {
                if (arena.numAllocations() == 0) continue;
                print("arena_active_bytes", arena.numActiveBytes());
                print("arena_active_allocations", arena.numActiveAllocations());
                print("arena_active_huge", arena.numActiveHugeAllocations());
            }
        } else {
            print("used_direct_memory",
                ((io.netty.buffer.ByteBufAllocatorMetricProvider) allocator).metric().usedDirectMemory());
        }
    }

    public static void main(String[] arguments) throws Exception {
        unpooled = new UnpooledByteBufAllocator(true, true);
        switch (arguments[0]) {
            // Arenas with chunks of 1 MiB.
            case "pooled": allocator = new PooledByteBufAllocator(true, 1, 1, 8192, 7); break;
            case "unpooled": allocator = unpooled; break;
            case "adaptive":
                allocator = (ByteBufAllocator) Class.forName("io.netty.buffer.AdaptiveByteBufAllocator")
                    .getConstructor(boolean.class, boolean.class).newInstance(true, true);
                break;
            default: allocator = ByteBufAllocator.DEFAULT;
        }
        String how = arguments.length > 1 ? arguments[1] : "";
        Holding holding = new Holding();
        Thread thread = new Thread(holding, "holding");
        thread.setDaemon(true);
        thread.start();
        holding.done.await();
        if (how.equals("live")) {
            int parked = Integer.parseInt(arguments[2]);
            for (int i = 0; i < parked + 20; i++) {
                Virtual virtual = new Virtual(i >= 20);
                Thread started = (Thread) Thread.class.getMethod("startVirtualThread", Runnable.class).invoke(null, virtual);
                virtual.done.await();
                if (i < 20) started.join();
            }
        }
        // What the start left behind would be most of a dump of all objects.
        System.gc();
        work();
        facts();
        if (how.equals("self")) {
            Object bean = Class.forName("java.lang.management.ManagementFactory").getMethod("getPlatformMXBean", Class.class)
                .invoke(null, Class.forName("com.sun.management.HotSpotDiagnosticMXBean"));
            Class.forName("com.sun.management.HotSpotDiagnosticMXBean").getMethod("dumpHeap", String.class, boolean.class)
                .invoke(bean, arguments[2], false);
        } else if (how.equals("oom")) {
            List<long[]> all = new ArrayList<>();
            try {
                while (true) all.add(new long[1 << 18]);
            } catch (OutOfMemoryError e) {
                all = null;
            }
        }
        System.out.println("ready");
        System.in.read();
        System.exit(0);
    }
}
