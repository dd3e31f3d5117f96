import io.netty.buffer.ByteBuf;
import io.netty.buffer.PooledByteBufAllocator;
import java.lang.management.ManagementFactory;
import java.lang.management.ThreadMXBean;
import java.util.concurrent.Semaphore;

/** The workloads of arena-benchmark on Netty's pooled direct buffers: same sizes, same victims, same lines out. */
public final class NettyBenchmark {
    private static final ThreadMXBean THREADS = ManagementFactory.getThreadMXBean();
    private static final PooledByteBufAllocator ALLOCATOR = PooledByteBufAllocator.DEFAULT;

    private static long state;

    private static long next() {
        state += 0x9e3779b97f4a7c15L;
        long z = state;
        z = (z ^ (z >>> 30)) * 0xbf58476d1ce4e5b9L;
        z = (z ^ (z >>> 27)) * 0x94d049bb133111ebL;
        return z ^ (z >>> 31);
    }

    private static int[] sizes(int largest) {
        state = 42;
        int[] sizes = new int[8192];
        for (int i = 0; i < sizes.length; i++) {
            double fraction = (double) (next() >>> 11) / (double) (1L << 53);
            sizes[i] = (int) Math.pow(2, 6 + fraction * (largest - 6));
        }
        return sizes;
    }

    private static double replace(int live, int largest, int pairs, boolean write, int rounds) {
        int[] sizes = sizes(largest);
        ByteBuf[] buffers = new ByteBuf[live];
        for (int i = 0; i < live; i++) buffers[i] = ALLOCATOR.directBuffer(sizes[i & 8191]);
        double best = Double.POSITIVE_INFINITY;
        int random = 1;
        // The first rounds are for the compiler.
        for (int round = -2; round < rounds; round++) {
            long start = THREADS.getCurrentThreadCpuTime();
            for (int pair = 0; pair < pairs; pair++) {
                random = random * 1664525 + 1013904223;
                int victim = (int) (((random & 0xffffffffL) * live) >>> 32);
                buffers[victim].release();
                ByteBuf buffer = ALLOCATOR.directBuffer(sizes[pair & 8191]);
                if (write) buffer.setByte(0, pair);
                buffers[victim] = buffer;
            }
            double elapsed = (double) (THREADS.getCurrentThreadCpuTime() - start) / pairs;
            if (round >= 0) best = Math.min(best, elapsed);
        }
        for (ByteBuf buffer : buffers) buffer.release();
        return best;
    }

    private static double[] remoteFree() throws InterruptedException {
        int count = 4096, batches = 400;
        int[] sizes = sizes(13);
        ByteBuf[] buffers = new ByteBuf[count];
        Semaphore full = new Semaphore(0), empty = new Semaphore(0);
        double[] best = {Double.POSITIVE_INFINITY, Double.POSITIVE_INFINITY};
        Thread thread = new Thread(() -> {
            for (int batch = 0; batch < batches; batch++) {
                full.acquireUninterruptibly();
                long start = THREADS.getCurrentThreadCpuTime();
                for (int i = 0; i < count; i++) buffers[i].release();
                best[0] = Math.min(best[0], (double) (THREADS.getCurrentThreadCpuTime() - start) / count);
                empty.release();
            }
        });
        thread.start();
        for (int batch = 0; batch < batches; batch++) {
            long start = THREADS.getCurrentThreadCpuTime();
            for (int i = 0; i < count; i++) buffers[i] = ALLOCATOR.directBuffer(sizes[i & 8191]);
            best[1] = Math.min(best[1], (double) (THREADS.getCurrentThreadCpuTime() - start) / count);
            full.release();
            empty.acquire();
        }
        thread.join();
        return best;
    }

    private static double scaling() throws InterruptedException {
        return 2 * perThread(1) / perThread(2);
    }

    private static double perThread(int count) throws InterruptedException {
        double[] figures = new double[count];
        Thread[] threads = new Thread[count];
        for (int i = 0; i < count; i++) {
            int index = i;
            threads[i] = new Thread(() -> figures[index] = replace(1024, 16, 500_000, false, 7));
            threads[i].start();
        }
        double sum = 0;
        for (int i = 0; i < count; i++) {
            threads[i].join();
            sum += figures[i];
        }
        return sum / count;
    }

    private static void report(String workload, double figure) {
        System.out.println(workload + "\t" + Math.round(figure * 10) / 10.0);
    }

    public static void main(String[] arguments) throws InterruptedException {
        // Paranoid leak detection walks the stack at every touch: one workload, and less of it, says enough.
        if (arguments.length > 0) {
            report("64 live", replace(64, 16, 100_000, false, 3));
            return;
        }
        report("64 live", replace(64, 16, 2_000_000, false, 7));
        report("65,536 live", replace(65536, 16, 1_000_000, false, 7));
        report("65,536 live, first byte written", replace(65536, 16, 1_000_000, true, 7));
        report("1,000,000 live, up to 1 KiB", replace(1_000_000, 10, 1_000_000, false, 3));
        double[] remote = remoteFree();
        report("remote free, freeing thread", remote[0]);
        report("remote free, with its allocation", remote[0] + remote[1]);
        report("two threads, times one", scaling());
    }
}
