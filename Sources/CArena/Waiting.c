#define _GNU_SOURCE
#include "CArena.h"

#include <time.h>

// Here and not in Swift, which does not see what glibc shows under _GNU_SOURCE only.
int arena_lock_within(pthread_mutex_t *mutex, int64_t nanoseconds) {
    struct timespec deadline;
    clock_gettime(CLOCK_MONOTONIC, &deadline);
    nanoseconds += deadline.tv_nsec;
    deadline.tv_sec += nanoseconds / 1000000000;
    deadline.tv_nsec = nanoseconds % 1000000000;
    return pthread_mutex_clocklock(mutex, CLOCK_MONOTONIC, &deadline);
}
