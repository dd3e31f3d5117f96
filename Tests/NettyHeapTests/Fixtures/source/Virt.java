import io.netty.buffer.ByteBuf;
import io.netty.buffer.PooledByteBufAllocator;
import java.util.concurrent.locks.LockSupport;

/** 50 parked virtual threads with a buffer of 20,000 bytes each on their stacks, and nothing lost. */
public class Virt {
    static volatile int sink;
    public static void main(String[] args) throws Exception {
        PooledByteBufAllocator allocator = new PooledByteBufAllocator(true, 1, 1, 8192, 9, 0, 0, 0, false);
        for (int i = 0; i < 50; i++) Thread.ofVirtual().start(() -> {
            ByteBuf buffer = allocator.directBuffer(20_000);
            while (true) { LockSupport.park(); sink += buffer.refCnt(); }
        });
        Thread.sleep(2000);
        System.out.println("ready");
        System.in.read();
    }
}
