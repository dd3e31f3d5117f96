// The few lines Swift cannot say: the thread's context, the cycle counter, and atomics on memory that Swift's
// `Atomic` cannot describe (records in a mapped region).
#ifndef CARENA_H
#define CARENA_H

#include <stdint.h>
#include <stddef.h>
#include <time.h>

#include "CrashNote.h"
#include "RecorderFile.h"
#include "ThreadStack.h"
#include "Waiting.h"

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

/// What the allocator needs to know about the running thread: its arena, and on whose behalf it works just now.
typedef struct arena_thread_context {
    void *_Nullable arena;     // an ArenaState, or NULL where the thread has none
    uint32_t site;   // site of allocations that name none (NIO's own)
    uint32_t owner;  // owner of allocations that name none
    void *_Nullable source;  // an ArenaState of the pool that these two are numbers of; only compared, since that may be gone
} arena_thread_context;

extern __thread arena_thread_context arena_context_storage __attribute__((tls_model("initial-exec")));

/// Bytes that malloc has given out and not got back, with its own headers.
uint64_t arena_heap_in_use(void);

/// The size of the block that malloc gave for an object, with its header.
size_t arena_heap_block(const void *_Nonnull object);

/// Has malloc give what it keeps free back to the system.
void arena_trim_heap(void);

static inline arena_thread_context *_Nonnull arena_context(void) { return &arena_context_storage; }

/// Has the C library give blocks of 128 KiB and more back to the system when they are freed, for good. By itself it raises
/// that size to the largest block it has seen, up to 32 MiB, and keeps what lies between: memory that nobody counts.
void arena_heap_gives_back(void);

/// Nanoseconds per tick as a 32.32 fixed-point number; set once by `arena_clock_start`.
extern uint64_t arena_clock_scale;

/// Calibrates the clock. Takes about two milliseconds the first time; further calls do nothing.
void arena_clock_start(void);

/// A monotonic reading in nanoseconds: one cycle-counter read and one multiplication.
static inline uint64_t arena_clock_now(void) {
#if defined(__x86_64__)
    return (uint64_t)(((unsigned __int128)__rdtsc() * arena_clock_scale) >> 32);
#elif defined(__aarch64__)
    uint64_t ticks;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(ticks));
    return (uint64_t)(((unsigned __int128)ticks * arena_clock_scale) >> 32);
#else
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
#endif
}

static inline uint64_t arena_load(const uint64_t *_Nonnull p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static inline uint64_t arena_load_relaxed(const uint64_t *_Nonnull p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
static inline void arena_store(uint64_t *_Nonnull p, uint64_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
static inline void arena_store_relaxed(uint64_t *_Nonnull p, uint64_t v) { __atomic_store_n(p, v, __ATOMIC_RELAXED); }
static inline void arena_store32_relaxed(uint32_t *_Nonnull p, uint32_t v) { __atomic_store_n(p, v, __ATOMIC_RELAXED); }
// Sequentially consistent: a thread that frees remotely pushes and then looks whether the arena is shared, a thread that
// lets its arena go marks it shared and then looks for pushes. One of the two must see the other.
static inline uint64_t arena_load_ordered(const uint64_t *_Nonnull p) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
static inline uint64_t arena_exchange(uint64_t *_Nonnull p, uint64_t v) {
    return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST);
}
static inline uint8_t arena_exchange8(uint8_t *_Nonnull p, uint8_t v) {
    return __atomic_exchange_n(p, v, __ATOMIC_ACQ_REL);
}
static inline uint64_t arena_add(uint64_t *_Nonnull p, uint64_t v) { return __atomic_add_fetch(p, v, __ATOMIC_ACQ_REL); }
static inline uint64_t arena_sub(uint64_t *_Nonnull p, uint64_t v) { return __atomic_sub_fetch(p, v, __ATOMIC_ACQ_REL); }
static inline int arena_compare_exchange(uint64_t *_Nonnull p, uint64_t *_Nonnull expected, uint64_t desired) {
    return __atomic_compare_exchange_n(p, expected, desired, 0, __ATOMIC_SEQ_CST, __ATOMIC_ACQUIRE);
}

/// Copies whole words, each of them as it was at one moment, while other threads write to them. `bytes` and both places are
/// multiples of eight.
void arena_copy_words(void *_Nonnull to, const void *_Nonnull from, size_t bytes);

/// Asks for a cache line that will be written soon. Any address is allowed.
static inline void arena_prefetch(const void *_Nonnull p) { __builtin_prefetch(p, 1, 3); }

#endif
