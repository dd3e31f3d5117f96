// What the flight recorder writes when a signal ends the process. The layout is the first 56 bytes of `FlightRecord`.
#ifndef CARENA_CRASH_NOTE_H
#define CARENA_CRASH_NOTE_H

#include <stddef.h>
#include <stdint.h>

typedef struct arena_crash_note {
    uint64_t end;           // 0 none, 1 in order, 2 signal, 3 a handler is writing
    uint32_t signal;
    int32_t code;           // si_code
    uint64_t fault_address;
    uint64_t wall_time;     // nanoseconds since 1970-01-01 UTC
    uint64_t time;          // the ledger clock
    uint64_t thread;
    uint64_t sender;        // the process that sent it, 0 where none did
} arena_crash_note;

/// From now on SIGSEGV, SIGBUS, SIGILL, SIGABRT, SIGFPE and SIGTRAP are noted here before whoever handled them so far
/// (a backtracer, or the system, which ends the process) gets them. Returns 0 where there are too many notes.
///
/// `mapping` is the recorder's file in memory: a store that fails while that is moved (`arena_move_ledger`) is done again.
int arena_crash_note_add(arena_crash_note *_Nonnull note, const void *_Nonnull mapping, size_t bytes);

/// The note's memory goes away.
void arena_crash_note_remove(arena_crash_note *_Nonnull note);

/// Whoever handles these signals otherwise, a backtracer that is, has so many seconds from now on; then the process ends by the
/// signal all the same, with the programs that the thread has started, and with it go its sockets and locks, which the next start
/// needs. 0: no bound.
void arena_crash_bound(unsigned seconds);

/// Marks every descriptor of the process that is open, but the first three: a program that it runs does not get them. Done too
/// when one of these signals comes. May be called in a signal's handler.
void arena_close_on_exec(void);

/// Gives the calling thread a stack for signal handlers, unless it has one: without, the overflow of its own stack
/// cannot be noted. It is never freed.
void arena_crash_stack(void);

#endif
