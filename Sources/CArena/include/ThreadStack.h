// Where another thread is, asked of it by a signal. Part of CArena.h.
#ifndef CARENA_THREAD_STACK_H
#define CARENA_THREAD_STACK_H

#include <stdint.h>

/// A thread that may be asked later where it is.
typedef struct arena_thread {
    int32_t id;           // the kernel's number; 0: none
    uintptr_t stack_low;  // its stack: [low, high)
    uintptr_t stack_high;
} arena_thread;

/// Addresses that hold code: [start, end).
typedef struct arena_code_range {
    uintptr_t start;
    uintptr_t end;
    int keeps_frames;  // whether its functions keep frame pointers
} arena_code_range;

/// The calling thread, which from now on takes the signal that asks it where it is.
arena_thread arena_thread_current(void);

/// Has `thread` say where it is: program counter first, then return addresses outwards, by frame pointers. Not to be called
/// by that thread.
///
/// It is interrupted by a signal (SIGRTMIN + 9), whose handler reads its own stack and nothing else. A thread that does not
/// answer within `milliseconds`, since it is in an uninterruptible system call, say, is left alone.
///
/// Returns the number of addresses in `frames`; 0 where there is no answer.
int arena_thread_stack(
    const arena_thread *_Nonnull thread, const arena_code_range *_Nonnull code, int code_count,
    uintptr_t *_Nonnull frames, int capacity, int milliseconds);

#endif
