#define _GNU_SOURCE
#include "CArena.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

enum { frame_capacity = 64, code_capacity = 256, scanned_words = 1024 };
enum { idle = 0, asked = 1, answering = 2, answered = 3 };

// One question at a time, guarded by `asking`. Its handler writes to nothing else.
static pthread_mutex_t asking = PTHREAD_MUTEX_INITIALIZER;
static struct {
    uint32_t state;
    arena_thread thread;
    arena_code_range code[code_capacity];
    int code_count;
    uintptr_t frames[frame_capacity];
    int count;
} question;

static const arena_code_range *range_of(uintptr_t address) {
    for (int index = 0; index < question.code_count; index++) {
        if (address >= question.code[index].start && address < question.code[index].end) return &question.code[index];
    }
    return NULL;
}

#define READS_ANYTHING __attribute__((no_sanitize("address", "thread")))

READS_ANYTHING static uintptr_t word(uintptr_t address) { return *(const uintptr_t *)address; }

// Whether a call ends at `address`.
READS_ANYTHING static int is_after_call(uintptr_t address, const arena_code_range *range) {
    if (address < range->start + 8) return 0;
    const uint8_t *code = (const uint8_t *)address;
#if defined(__x86_64__)
    if (code[-5] == 0xe8) return 1;
    // Through a register or memory: ff /2, of two, three, four, six or seven bytes.
    static const int lengths[] = {2, 3, 4, 6, 7};
    for (int index = 0; index < 5; index++) {
        if (code[-lengths[index]] == 0xff && (code[1 - lengths[index]] & 0x38) == 0x10) return 1;
    }
    return 0;
#elif defined(__aarch64__)
    uint32_t instruction = *(const uint32_t *)(code - 4);
    return (instruction & 0xfc000000) == 0x94000000 || (instruction & 0xfffffc1f) == 0xd63f0000;
#else
    return 0;
#endif
}

// Whether a frame record (the caller's frame, the return address) can be at `frame`, above `stack`.
READS_ANYTHING static int is_frame(uintptr_t frame, uintptr_t stack) {
    return frame % sizeof(uintptr_t) == 0 && frame >= stack
        && frame + 2 * sizeof(uintptr_t) <= question.thread.stack_high && range_of(word(frame + sizeof(uintptr_t))) != NULL;
}

// Adds the return addresses from `frame` outwards.
READS_ANYTHING static void walk(uintptr_t frame, uintptr_t stack) {
    while (question.count < frame_capacity && is_frame(frame, stack)) {
        question.frames[question.count++] = word(frame + sizeof(uintptr_t));
        uintptr_t caller = word(frame);
        if (caller <= frame) return;
        frame = caller;
    }
}

// In the C library, which keeps no frame pointers: the first place on the stack that it returns to outside, and the frame
// of the function there. The register still has that, or it was saved below.
READS_ANYTHING static uintptr_t leave_library(uintptr_t frame, uintptr_t stack) {
    for (int index = 0; index < scanned_words; index++) {
        uintptr_t place = stack + (uintptr_t)index * sizeof(uintptr_t);
        if (place + sizeof(uintptr_t) > question.thread.stack_high) break;
        uintptr_t back = word(place);
        const arena_code_range *range = range_of(back);
        if (range == NULL || !range->keeps_frames || !is_after_call(back, range)) continue;
        question.frames[question.count++] = back;
        uintptr_t nearest = frame > place && is_frame(frame, stack) ? frame : 0;
        for (uintptr_t saved = stack; saved < place; saved += sizeof(uintptr_t)) {
            uintptr_t found = word(saved);
            if (found > place && (nearest == 0 || found < nearest) && is_frame(found, stack)) nearest = found;
        }
        return nearest;
    }
    return frame;
}

static void note(uintptr_t pc, uintptr_t frame, uintptr_t stack) {
    question.frames[0] = pc;
    question.count = 1;
    if (stack < question.thread.stack_low || stack >= question.thread.stack_high || stack % sizeof(uintptr_t) != 0) return;
    const arena_code_range *range = range_of(pc);
    if (range == NULL || !range->keeps_frames) frame = leave_library(frame, stack);
    walk(frame, stack);
}

static void answer(int number, siginfo_t *info, void *context) {
    (void)number, (void)info;
    int saved = errno;
    uint32_t expected = asked;
    if (!__atomic_compare_exchange_n(&question.state, &expected, answering, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        // Nobody waits for an answer any more.
    } else if (question.thread.id != (int32_t)syscall(SYS_gettid)) {
        // A late signal, and by now another thread is asked.
        __atomic_store_n(&question.state, asked, __ATOMIC_RELEASE);
    } else {
        const mcontext_t *registers = &((const ucontext_t *)context)->uc_mcontext;
#if defined(__x86_64__)
        note((uintptr_t)registers->gregs[REG_RIP], (uintptr_t)registers->gregs[REG_RBP], (uintptr_t)registers->gregs[REG_RSP]);
#elif defined(__aarch64__)
        note((uintptr_t)registers->pc, (uintptr_t)registers->regs[29], (uintptr_t)registers->sp);
#else
        (void)registers;
        question.count = 0;
#endif
        __atomic_store_n(&question.state, answered, __ATOMIC_RELEASE);
    }
    errno = saved;
}

static int is_installed;

static void install(void) {
    struct sigaction before, action = {0};
    if (sigaction(SIGRTMIN + 9, NULL, &before) != 0 || before.sa_handler != SIG_DFL) return;
    action.sa_sigaction = answer;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
    sigfillset(&action.sa_mask);
    is_installed = sigaction(SIGRTMIN + 9, &action, NULL) == 0;
}

static pthread_once_t once = PTHREAD_ONCE_INIT;

arena_thread arena_thread_current(void) {
    arena_thread thread = {.id = (int32_t)syscall(SYS_gettid)};
    pthread_once(&once, install);
    // Threads begin with what their makers have blocked, and Dispatch's block all that they can.
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 9);
    if (is_installed) pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    pthread_attr_t attributes;
    void *low;
    size_t size;
    if (pthread_getattr_np(pthread_self(), &attributes) != 0) return thread;
    if (pthread_attr_getstack(&attributes, &low, &size) == 0) {
        thread.stack_low = (uintptr_t)low;
        thread.stack_high = (uintptr_t)low + size;
    }
    pthread_attr_destroy(&attributes);
    return thread;
}

static void pause_a_moment(void) {
    struct timespec moment = {.tv_nsec = 200000};
    nanosleep(&moment, NULL);
}

static int ask(const arena_thread *thread, const arena_code_range *code, int code_count, int milliseconds) {
    // A handler that was given up on is still writing.
    if (__atomic_load_n(&question.state, __ATOMIC_ACQUIRE) == answering) return 0;
    question.thread = *thread;
    question.code_count = code_count < code_capacity ? code_count : code_capacity;
    for (int index = 0; index < question.code_count; index++) question.code[index] = code[index];
    __atomic_store_n(&question.state, asked, __ATOMIC_RELEASE);
    if (syscall(SYS_tgkill, getpid(), thread->id, SIGRTMIN + 9) == 0) {
        for (int waited = 0; waited < milliseconds * 5; waited++) {
            if (__atomic_load_n(&question.state, __ATOMIC_ACQUIRE) == answered) break;
            pause_a_moment();
        }
    }
    uint32_t expected = asked;
    // Not to be answered any more; or it has been, or is being.
    if (__atomic_compare_exchange_n(&question.state, &expected, idle, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) return 0;
    for (int waited = 0; expected == answering && waited < 100; waited++) {
        pause_a_moment();
        expected = __atomic_load_n(&question.state, __ATOMIC_ACQUIRE);
    }
    return expected == answered;
}

int arena_thread_stack(
    const arena_thread *thread, const arena_code_range *code, int code_count, uintptr_t *frames, int capacity,
    int milliseconds
) {
    if (!is_installed || thread->id == 0) return 0;
    pthread_mutex_lock(&asking);
    int count = 0;
    if (ask(thread, code, code_count, milliseconds)) {
        count = question.count < capacity ? question.count : capacity;
        for (int index = 0; index < count; index++) frames[index] = question.frames[index];
    }
    pthread_mutex_unlock(&asking);
    return count;
}
