import io.netty.buffer.ByteBuf;
import io.netty.buffer.PooledByteBufAllocator;
import io.netty.util.internal.PlatformDependent;
import java.util.ArrayList;
import java.util.List;

/** What one copy of Netty does in Pair.java: keeps some buffers of 2000 bytes, and loses some of `bytes`. */
public final class Part implements Runnable {
    static final List<ByteBuf> KEPT = new ArrayList<>();

    @Override public void run() {
        PooledByteBufAllocator allocator = new PooledByteBufAllocator(true, 0, 1, 8192, 7);
        int kept = Integer.getInteger("kept"), lost = Integer.getInteger("lost"), bytes = Integer.getInteger("bytes");
        for (int i = 0; i < kept; i++) KEPT.add(allocator.directBuffer(2000));
        for (int i = 0; i < lost; i++) allocator.directBuffer(bytes);
        System.out.println("counter " + PlatformDependent.usedDirectMemory());
        System.out.println("used_direct_memory " + allocator.metric().usedDirectMemory());
        System.out.println("arena_active_bytes " + allocator.metric().directArenas().get(0).numActiveBytes());
    }
}
