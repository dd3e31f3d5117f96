#define _GNU_SOURCE
#include "CArena.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <time.h>

int arena_lease_take(int descriptor) {
    // The kernel tells of who waits by a signal: SIGIO, which would end the process, unless another is named. This one is ignored by
    // default, and who waits is asked for. (Letting go of a lease forgets it.)
    if (fcntl(descriptor, F_SETSIG, SIGURG) != 0) return errno;
    return fcntl(descriptor, F_SETLEASE, F_WRLCK) == 0 ? 0 : errno;
}

arena_lease_wish arena_lease_wanted(int descriptor) {
    switch (fcntl(descriptor, F_GETLEASE)) {
    case F_WRLCK: return arena_lease_nobody;
    case F_RDLCK: return arena_lease_reader;
    // Or the system has taken it away, as it does when somebody has waited for too long.
    default: return arena_lease_writer;
    }
}

void arena_lease_drop(int descriptor) { fcntl(descriptor, F_SETLEASE, F_UNLCK); }

static uint32_t is_moving;

void arena_wait_for_move(void) {
    struct timespec moment = {.tv_nsec = 100000};
    while (__atomic_load_n(&is_moving, __ATOMIC_ACQUIRE)) nanosleep(&moment, NULL);
}

enum { page_bytes = 4096 };

// Whoever writes meanwhile does so by plain stores, which is meant: ThreadSanitizer need not hear of it.
__attribute__((no_sanitize("thread"))) static int is_equal(const char *one, const char *other) {
    const uint64_t *a = (const uint64_t *)one, *b = (const uint64_t *)other;
    for (int index = 0; index < page_bytes / 8; index++) {
        if (__atomic_load_n(a + index, __ATOMIC_RELAXED) != b[index]) return 0;
    }
    return 1;
}

void arena_copy_ledger(const arena_file_part *parts, int count, void *copy) {
    for (int index = 0; index < count; index++) {
        const char *from = parts[index].start;
        for (size_t place = 0; place < parts[index].stored; place += page_bytes) {
            char *to = (char *)copy + parts[index].offset + place;
            if (!is_equal(from + place, to)) arena_copy_words(to, from + place, page_bytes);
        }
    }
}

static int protect(const arena_file_part *parts, int count, int how) {
    for (int index = 0; index < count; index++) {
        if (parts[index].stored != 0 && mprotect(parts[index].start, parts[index].stored, how) != 0) return errno;
    }
    return 0;
}

int arena_move_ledger(const arena_file_part *parts, int count, void *region, int *moved) {
    char *copy = region;
    *moved = 0;
    // From here on a store is a fault, whose handler waits for the end of this and then has it done again.
    __atomic_store_n(&is_moving, 1, __ATOMIC_SEQ_CST);
    int code = protect(parts, count, PROT_READ);
    if (code == 0) arena_copy_ledger(parts, count, copy);
    while (*moved < count && code == 0) {
        const arena_file_part *part = &parts[*moved];
        // In one step, as others see it: who touches a page meanwhile waits in the kernel.
        if (part->moving != 0
            && mremap(copy + part->offset, part->moving, part->moving, MREMAP_MAYMOVE | MREMAP_FIXED, part->start) == MAP_FAILED) {
            code = errno;
        } else {
            *moved += 1;
        }
    }
    // What has been moved is like what has not: nobody notices where it is.
    if (code != 0) protect(parts, count, PROT_READ | PROT_WRITE);
    __atomic_store_n(&is_moving, 0, __ATOMIC_SEQ_CST);
    // What has been moved left its place to whoever maps memory next.
    for (int index = 0; index < count; index++) {
        size_t gone = index < *moved ? parts[index].moving : 0;
        if (gone < parts[index].room) munmap(copy + parts[index].offset + gone, parts[index].room - gone);
    }
    return code;
}
