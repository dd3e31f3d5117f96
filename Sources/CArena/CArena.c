#include "CArena.h"

#include <malloc.h>
#include <pthread.h>

__thread arena_thread_context arena_context_storage __attribute__((tls_model("initial-exec")));

uint64_t arena_clock_scale = (uint64_t)1 << 32;

#if defined(__x86_64__)
static uint64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
#endif

// The cycle counter is measured against CLOCK_MONOTONIC for two milliseconds: a scale right to about 1 in 20,000,
// which is far finer than any age a person reads. It is never measured again, so readings never step back.
static void calibrate(void) {
#if defined(__x86_64__)
    uint64_t start = nanoseconds(), startTicks = __rdtsc(), end, endTicks;
    do {
        end = nanoseconds();
        endTicks = __rdtsc();
    } while (end - start < 2000000 || endTicks == startTicks);
    arena_clock_scale = (uint64_t)(((unsigned __int128)(end - start) << 32) / (endTicks - startTicks));
#elif defined(__aarch64__)
    uint64_t frequency;
    __asm__ volatile("mrs %0, cntfrq_el0" : "=r"(frequency));
    arena_clock_scale = (uint64_t)(((unsigned __int128)1000000000u << 32) / frequency);
#endif
}

void arena_clock_start(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, calibrate);
}

void arena_heap_gives_back(void) {
#if defined(__GLIBC__)
    mallopt(M_MMAP_THRESHOLD, 128 * 1024);
    mallopt(M_TRIM_THRESHOLD, 128 * 1024);
#endif
}

uint64_t arena_heap_in_use(void) {
#if defined(__GLIBC__)
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
#else
    return 0;
#endif
}

size_t arena_heap_block(const void *object) {
#if defined(__GLIBC__)
    return malloc_usable_size((void *)object) + sizeof(size_t);
#else
    return 0;
#endif
}

void arena_trim_heap(void) {
#if defined(__GLIBC__)
    malloc_trim(0);
#endif
}

// Whoever writes does so by plain stores: a race that is meant, of which ThreadSanitizer need not hear.
__attribute__((no_sanitize("thread"))) void arena_copy_words(void *to, const void *from, size_t bytes) {
    uint64_t *target = to;
    const uint64_t *source = from;
    for (size_t word = 0; word < bytes / 8; word++) target[word] = __atomic_load_n(source + word, __ATOMIC_RELAXED);
}
