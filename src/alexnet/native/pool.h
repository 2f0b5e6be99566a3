/* Threads that help where they are free, and are not waited for where they are not. */
#ifndef POOL_H
#define POOL_H
#include <stdint.h>

/* One item of a work; `who` is 0 for the caller and 1 up for helpers. */
typedef void (*Work)(void *told, int64_t item, int who);

/* Do items 0 to items - 1 with up to `threads` threads, the caller's included; returns when all are
 * done. Who does which is left to chance. */
void share_work(Work work, void *told, int64_t items, int threads);

#endif
