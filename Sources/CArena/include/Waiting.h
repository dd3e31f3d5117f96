// Waiting for a lock for so long, whatever somebody does to the wall clock meanwhile. Part of CArena.h.
#ifndef CARENA_WAITING_H
#define CARENA_WAITING_H

#include <pthread.h>
#include <stdint.h>

/// As pthread_mutex_lock, but for so many nanoseconds at most, by CLOCK_MONOTONIC. Returns 0 or the error number: ETIMEDOUT.
int arena_lock_within(pthread_mutex_t *_Nonnull mutex, int64_t nanoseconds);

#endif
