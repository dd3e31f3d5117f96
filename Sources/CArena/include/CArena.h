// The few lines Swift cannot say: thread-local context, and the cycle counter.
#ifndef CARENA_H
#define CARENA_H
#include <stdint.h>
#endif
