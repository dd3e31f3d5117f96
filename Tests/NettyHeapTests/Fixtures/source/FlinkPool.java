import org.apache.flink.runtime.io.network.buffer.NetworkBufferPool;
import org.apache.flink.shaded.netty4.io.netty.buffer.ByteBuf;
import org.apache.flink.shaded.netty4.io.netty.buffer.PooledByteBufAllocator;

/** Flink's network buffers, 200 of 32 KiB, beside one chunk of its Netty: both are counted by the JVM. */
public final class FlinkPool {
    static NetworkBufferPool pool;
    static ByteBuf kept;
    public static void main(String[] a) throws Exception {
        pool = new NetworkBufferPool(200, 32768);
        kept = new PooledByteBufAllocator(true, 0, 1, 8192, 7, 0, 0, false).directBuffer(1000);
        java.lang.reflect.Field field = Class.forName("java.nio.Bits").getDeclaredField("RESERVED_MEMORY");
        field.setAccessible(true);
        System.out.println("reserved " + field.get(null));
        System.out.println("ready");
        System.in.read();
    }
}
