import io.netty.buffer.ByteBuf;
import io.netty.buffer.PooledByteBufAllocator;
import java.util.ArrayList;
import java.util.List;

/** Keeps 20 buffers of 5,000 bytes and loses 80: each is garbage that only its recycler's handle refers to. */
public class Cycle {
    static final List<ByteBuf> KEPT = new ArrayList<>();

    public static void main(String[] args) throws Exception {
        PooledByteBufAllocator allocator = new PooledByteBufAllocator(true, 1, 1, 8192, 9, 0, 0, 0, false);
        for (int i = 0; i < 20; i++) KEPT.add(allocator.directBuffer(5_000));
        for (int i = 0; i < 5; i++) { System.gc(); Thread.sleep(200); }
        lose(allocator);
        System.out.println("ready");
        System.in.read();
    }

    private static void lose(PooledByteBufAllocator allocator) {
        for (int i = 0; i < 80; i++) allocator.directBuffer(5_000);
    }
}
