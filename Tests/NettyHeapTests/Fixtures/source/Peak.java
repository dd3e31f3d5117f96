import io.netty.buffer.ByteBuf;
import io.netty.buffer.ByteBufAllocator;
import io.netty.util.concurrent.FastThreadLocalThread;
import io.netty.util.internal.PlatformDependent;
import java.lang.reflect.Field;
import java.util.ArrayList;
import java.util.List;
import java.util.Queue;
import java.util.concurrent.CountDownLatch;

/**
 * The adaptive allocator after a peak: what was released lies in chunks, and where these are Netty's own collections say,
 * which are asked and printed.
 *
 *     java -cp ... Peak [heap]
 *
 * By constructions there are kept: 3 buffers of 1,000 bytes by the thread "worker" out of a peak of 1,000, 2 of 4,000 by the
 * main thread out of 200, 5 of 300 by a thread that has ended, 2 of 100,000 out of 60, and nothing of the 600 of 2,000 bytes that
 * the thread "idle" had. Nothing is lost.
 */
public final class Peak {
    static final class Session { final List<ByteBuf> queue = new ArrayList<>(); }
    static final Session SESSION = new Session();
    static final List<ByteBuf> KEPT = new ArrayList<>();
    static ByteBufAllocator allocator;
    static boolean onHeap;

    /** Allocates `count` buffers, and releases all but `keep` that are evenly spread over them. */
    static void peak(List<ByteBuf> kept, int count, int bytes, int keep) {
        List<ByteBuf> all = new ArrayList<>();
        for (int i = 0; i < count; i++) all.add(onHeap ? allocator.heapBuffer(bytes) : allocator.directBuffer(bytes));
        for (int i = 0; i < count; i++) {
            if (keep > 0 && i % (count / keep) == count / keep / 2) {
                synchronized (kept) { kept.add(all.get(i)); }
            } else {
                all.get(i).release();
            }
        }
    }

    static Object get(Object from, String name) throws ReflectiveOperationException {
        for (Class<?> type = from.getClass(); type != null; type = type.getSuperclass()) {
            for (Field field : type.getDeclaredFields()) {
                if (!field.getName().equals(name)) continue;
                field.setAccessible(true);
                return field.get(from);
            }
        }
        return null;
    }

    static int bytes(Object chunk) throws ReflectiveOperationException { return (Integer) get(chunk, "capacity"); }

    /** What a queue, or the skip list of later versions, has by its own iterator. */
    static void printCache(String whose, Object cache) throws ReflectiveOperationException {
        if (cache == null) return;
        Object chunks = cache instanceof Queue ? cache : get(cache, "queue");
        if (chunks == null) chunks = get(cache, "chunks");
        int count = 0;
        long bytes = 0;
        for (Object entry : (Iterable<?>) chunks) {
            Object chunk = get(entry, "capacity") == null ? get(entry, "value") : entry;
            count++;
            bytes += bytes(chunk);
        }
        if (count > 0) System.out.println(whose + " cache " + count + " chunks " + bytes);
    }

    static void printMagazine(String whose, Object magazine) throws ReflectiveOperationException {
        if (magazine == null) return;
        for (String place : new String[] { "current", "nextInLine" }) {
            Object chunk = get(magazine, place);
            if (chunk != null && bytes(chunk) > 0) System.out.println(whose + " " + place + " 1 chunks " + bytes(chunk));
        }
    }

    static void printGroup(String whose, Object group) throws ReflectiveOperationException {
        for (String name : new String[] { "chunkCache", "chunkReuseQueue" }) printCache(whose, get(group, name));
        printMagazine(whose, get(group, "threadLocalMagazine"));
        Object[] magazines = (Object[]) get(group, "magazines");
        if (magazines != null) for (Object magazine : magazines) printMagazine(whose, magazine);
    }

    /** Called by each thread, for what it has itself. */
    static synchronized void printLocal(String whose) throws ReflectiveOperationException {
        Object pool = get(allocator, onHeap ? "heap" : "direct");
        Object local = get(pool, "threadLocalGroup");
        if (local == null) local = get(pool, "threadLocalMagazine");
        if (local == null) return;
        Object value = ((io.netty.util.concurrent.FastThreadLocal<?>) local).get();
        if (value instanceof Object[]) for (Object group : (Object[]) value) printGroup(whose, group);
        else printMagazine(whose, value);
    }

    static void printShared() throws ReflectiveOperationException {
        Object pool = get(allocator, onHeap ? "heap" : "direct");
        Object[] groups = (Object[]) get(pool, "sizeClassedMagazineGroups");
        if (groups != null) for (Object group : groups) printGroup("shared", group);
        Object large = get(pool, "largeBufferMagazineGroup");
        if (large != null) printGroup("shared", large);
        Object[] magazines = (Object[]) get(pool, "magazines");
        if (magazines != null) for (Object magazine : magazines) printMagazine("shared", magazine);
        printCache("central", get(pool, "centralQueue"));
    }

    static Thread start(final String name, final CountDownLatch never, final List<ByteBuf> kept, final int count,
        final int bytes, final int keep) throws InterruptedException {
        final CountDownLatch done = new CountDownLatch(1);
        Thread thread = new FastThreadLocalThread(new Runnable() { @Override public void run() {
            try {
                peak(kept, count, bytes, keep);
                if (never != null) printLocal(name);
                done.countDown();
                if (never != null) never.await();
            } catch (Exception e) { e.printStackTrace(); }
        } }, name);
        thread.setDaemon(true);
        thread.start();
        done.await();
        if (never == null) thread.join();
        return thread;
    }

    public static void main(String[] arguments) throws Exception {
        onHeap = arguments.length > 0;
        allocator = (ByteBufAllocator) Class.forName("io.netty.buffer.AdaptiveByteBufAllocator")
            .getConstructor(boolean.class, boolean.class).newInstance(true, true);
        CountDownLatch never = new CountDownLatch(1);
        start("worker", never, SESSION.queue, 1000, 1000, 3);
        start("idle", never, KEPT, 600, 2000, 0);
        start("gone", null, KEPT, 400, 300, 5);
        peak(KEPT, 200, 4000, 2);
        peak(KEPT, 60, 100_000, 2);
        printShared();
        System.out.println("counter " + PlatformDependent.usedDirectMemory());
        System.out.println("used_direct_memory "
            + ((io.netty.buffer.ByteBufAllocatorMetricProvider) allocator).metric().usedDirectMemory());
        System.out.println("ready");
        System.in.read();
    }
}
