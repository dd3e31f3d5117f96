#define _GNU_SOURCE
#include "CArena.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

_Static_assert(sizeof(arena_crash_note) == 56, "the layout is FlightRecord's");

enum { note_capacity = 16, handler_stack_bytes = 128 << 10, guard_bytes = 4096 };

static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGABRT, SIGFPE, SIGTRAP};
enum { signal_count = sizeof(signals) / sizeof(signals[0]) };
static struct sigaction previous[signal_count];
static arena_crash_note *_Nullable notes[note_capacity];

// Everything here is async-signal-safe: system calls, the cycle counter, and stores to memory that is mapped.
static void write_note(arena_crash_note *note, int number, const siginfo_t *info) {
    uint64_t none = 0;
    // The first signal is the cause; what the handlers of others then raise is not.
    if (!__atomic_compare_exchange_n(&note->end, &none, 3, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) return;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    note->signal = (uint32_t)number;
    note->code = info->si_code;
    note->fault_address = info->si_code > 0 ? (uint64_t)(uintptr_t)info->si_addr : 0;
    note->wall_time = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    note->time = arena_clock_now();
    note->thread = (uint64_t)syscall(SYS_gettid);
    note->sender = info->si_code <= 0 && info->si_pid != getpid() ? (uint64_t)info->si_pid : 0;
    __atomic_store_n(&note->end, 2, __ATOMIC_RELEASE);
}

// What is blocked while the handler of before runs must be what it asked for: Swift's backtracer reads memory that may
// not be there and catches the faults, on a thread that inherits this mask.
static void block_as(const struct sigaction *before, int number, const ucontext_t *context) {
    sigset_t mask;
    sigorset(&mask, &context->uc_sigmask, &before->sa_mask);
    if (!(before->sa_flags & SA_NODEFER)) sigaddset(&mask, number);
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
}

static void handle(int number, siginfo_t *info, void *context) {
    int saved = errno;
    for (int index = 0; index < note_capacity; index++) {
        arena_crash_note *note = __atomic_load_n(&notes[index], __ATOMIC_ACQUIRE);
        if (note) write_note(note, number, info);
    }
    // Whoever was there before gets the signal, from the same place and with the same registers.
    for (int index = 0; index < signal_count; index++) {
        if (signals[index] != number) continue;
        const struct sigaction *before = &previous[index];
        block_as(before, number, context);
        if (before->sa_flags & SA_SIGINFO) {
            before->sa_sigaction(number, info, context);
        } else if (before->sa_handler != SIG_DFL) {
            before->sa_handler(number);
        }
    }
    // Then the system's default, which ends the process: a fault happens again when this returns, with a core of the
    // right place, and what was sent is sent again. (Swift's backtracer alone would survive a signal that was sent.)
    signal(number, SIG_DFL);
    if (info->si_code <= 0 || number == SIGTRAP) syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), number);
    errno = saved;
}

static void install(void) {
    struct sigaction action = {0};
    action.sa_sigaction = handle;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    // No second signal of these while one is noted.
    for (int index = 0; index < signal_count; index++) sigaddset(&action.sa_mask, signals[index]);
    for (int index = 0; index < signal_count; index++) {
        sigaction(signals[index], NULL, &previous[index]);
        int is_ignored = !(previous[index].sa_flags & SA_SIGINFO) && previous[index].sa_handler == SIG_IGN;
        if (!is_ignored) sigaction(signals[index], &action, NULL);
    }
}

int arena_crash_note_add(arena_crash_note *note) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, install);
    for (int index = 0; index < note_capacity; index++) {
        arena_crash_note *none = NULL;
        if (__atomic_compare_exchange_n(&notes[index], &none, note, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) return 1;
    }
    return 0;
}

void arena_crash_note_remove(arena_crash_note *note) {
    for (int index = 0; index < note_capacity; index++) {
        arena_crash_note *held = note;
        __atomic_compare_exchange_n(&notes[index], &held, NULL, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    }
}

void arena_crash_stack(void) {
    stack_t stack;
    if (sigaltstack(NULL, &stack) != 0 || !(stack.ss_flags & SS_DISABLE)) return;
    char *memory = mmap(
        NULL, guard_bytes + handler_stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (memory == MAP_FAILED) return;
    mprotect(memory, guard_bytes, PROT_NONE);
    stack = (stack_t){.ss_sp = memory + guard_bytes, .ss_flags = 0, .ss_size = handler_stack_bytes};
    sigaltstack(&stack, NULL);
}
