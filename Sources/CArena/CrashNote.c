#define _GNU_SOURCE
#include "CArena.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

_Static_assert(sizeof(arena_crash_note) == 56, "the layout is FlightRecord's");

enum { note_capacity = 16, handler_stack_bytes = 128 << 10, guard_bytes = 4096 };

static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGABRT, SIGFPE, SIGTRAP};
enum { signal_count = sizeof(signals) / sizeof(signals[0]) };
static struct sigaction previous[signal_count];
static arena_crash_note *_Nullable notes[note_capacity];
// The mapping that each of them is in.
static struct {
    uintptr_t start, end;
} mappings[note_capacity];

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

// How long whoever handled the signal before may take; 0: as long as it likes.
static unsigned patience_seconds;
static int crash_signal;
static pid_t crash_thread;

// The backtracer, which would go on looking for names in memory that is gone. By hand, since a handler may call next to nothing.
static void end_programs(void) {
    char path[64] = "/proc/self/task/", digits[16], text[256];
    int count = 0;
    for (pid_t rest = crash_thread; rest != 0; rest /= 10) digits[count++] = (char)('0' + rest % 10);
    char *end = path + strlen(path);
    while (count > 0) *end++ = digits[--count];
    strcpy(end, "/children");
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return;
    ssize_t bytes = read(file, text, sizeof(text));
    close(file);
    pid_t program = 0;
    for (ssize_t index = 0; index < bytes; index++) {
        if (text[index] >= '0' && text[index] <= '9') {
            program = program * 10 + (text[index] - '0');
        } else if (program != 0) {
            kill(program, SIGKILL);
            program = 0;
        }
    }
}

// Whatever is still at work on the corpse, and keeps its sockets and locks: enough. The process ends by the signal that it got.
static void give_up(int number) {
    (void)number;
    end_programs();
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, crash_signal);
    signal(crash_signal, SIG_DFL);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), crash_signal);
}

static void be_patient(int number) {
    if (patience_seconds == 0) return;
    crash_signal = number;
    crash_thread = (pid_t)syscall(SYS_gettid);
    struct sigaction action = {0};
    action.sa_handler = give_up;
    sigaction(SIGALRM, &action, NULL);
    alarm(patience_seconds);
}

// What is blocked while the handler of before runs must be what it asked for: Swift's backtracer reads memory that may
// not be there and catches the faults, on a thread that inherits this mask.
static void block_as(const struct sigaction *before, int number, const ucontext_t *context) {
    sigset_t mask;
    sigorset(&mask, &context->uc_sigmask, &before->sa_mask);
    if (!(before->sa_flags & SA_NODEFER)) sigaddset(&mask, number);
    if (patience_seconds != 0) sigdelset(&mask, SIGALRM);
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
}

static int is_in_mapping(const siginfo_t *info) {
    uintptr_t address = (uintptr_t)info->si_addr;
    for (int index = 0; index < note_capacity; index++) {
        if (__atomic_load_n(&notes[index], __ATOMIC_ACQUIRE) == NULL) continue;
        if (address >= mappings[index].start && address < mappings[index].end) return 1;
    }
    return 0;
}

static void say(const char *text) {
    ssize_t written = write(STDERR_FILENO, text, strlen(text));
    (void)written;
}

static void handle(int number, siginfo_t *info, void *context) {
    int saved = errno;
    // A ledger that is recorded cannot be stored to while it is moved, and can at any other time.
    if (number == SIGSEGV && info->si_code == SEGV_ACCERR && is_in_mapping(info)) {
        arena_wait_for_move();
        errno = saved;
        return;
    }
    if (number == SIGBUS && info->si_code > 0 && is_in_mapping(info)) {
        say("the flight recorder's file was cut short, or its disk cannot be read: what was known of the memory is lost with "
            "it, and the process ends\n");
    }
    for (int index = 0; index < note_capacity; index++) {
        arena_crash_note *note = __atomic_load_n(&notes[index], __ATOMIC_ACQUIRE);
        if (note) write_note(note, number, info);
    }
    // A backtracer is a program of its own: it must not keep sockets that the next start of this one wants.
    arena_close_on_exec();
    be_patient(number);
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

static pthread_once_t installation = PTHREAD_ONCE_INIT;

void arena_crash_bound(unsigned seconds) {
    patience_seconds = seconds;
    pthread_once(&installation, install);
}

// By one system call, of all that are open, whoever opened them. Before Linux 5.11, one by one.
void arena_close_on_exec(void) {
    enum { close_on_exec = 4, most = 1 << 16 };
    if (syscall(SYS_close_range, 3, ~0u, close_on_exec) == 0) return;
    struct rlimit limit;
    int end = getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < most ? (int)limit.rlim_cur : most;
    for (int descriptor = 3; descriptor < end; descriptor++) fcntl(descriptor, F_SETFD, FD_CLOEXEC);
}

int arena_crash_note_add(arena_crash_note *note, const void *mapping, size_t bytes) {
    static pthread_mutex_t adding = PTHREAD_MUTEX_INITIALIZER;
    pthread_once(&installation, install);
    pthread_mutex_lock(&adding);
    int index = 0;
    while (index < note_capacity && __atomic_load_n(&notes[index], __ATOMIC_ACQUIRE) != NULL) index++;
    if (index < note_capacity) {
        mappings[index].start = (uintptr_t)mapping;
        mappings[index].end = (uintptr_t)mapping + bytes;
        __atomic_store_n(&notes[index], note, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&adding);
    return index < note_capacity;
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
