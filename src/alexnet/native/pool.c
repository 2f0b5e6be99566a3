/* Threads that help where they are free, and are not waited for where they are not.
 *
 * A team of OpenMP begins with all of its threads and ends when all have arrived: with other programs
 * on the processor, work of a tenth of a millisecond then waits for several milliseconds. Here the
 * caller takes item after item, helpers take what they come to, and the caller waits for no more than
 * an item that a helper has begun.
 */
#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>

enum { HELPERS = 15, LOOKS = 1000, MOST_ITEMS = 1 << 24 };

/* What is left, in one word, so that a thread that claims an item claims it of the work at hand: the
 * number of threads, of items, and of the next item. */
typedef uint64_t Left;
static Left left_of(int threads, int64_t items, int64_t next) {
  return (Left)threads << 48 | (Left)items << 24 | (Left)next;
}
static int threads_of(Left left) { return (int)(left >> 48); }
static int64_t items_of(Left left) { return left >> 24 & (MOST_ITEMS - 1); }
static int64_t next_of(Left left) { return left & (MOST_ITEMS - 1); }

static _Atomic Left left;
static _Atomic int64_t done;
static _Atomic int asleep;
static Work work_at_hand; /* these two change only while nothing is left or under way */
static void *told_at_hand;

static pthread_mutex_t in_use = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t sleeping = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
static int started;

static inline void pause_a_little(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#endif
}

static int something_for(int who) {
  const Left now = atomic_load(&left);
  return who < threads_of(now) && next_of(now) < items_of(now);
}

/* Take items until none is left. */
static void take_items(int who) {
  Left now = atomic_load(&left);
  while (who < threads_of(now) && next_of(now) < items_of(now)) {
    if (!atomic_compare_exchange_weak(&left, &now, now + 1)) continue;
    work_at_hand(told_at_hand, next_of(now), who);
    atomic_fetch_add(&done, 1);
    now = atomic_load(&left);
  }
}

static void *help(void *number) {
  const int who = (int)(intptr_t)number;
  for (;;) {
    for (int look = 0; look < LOOKS && !something_for(who); look++) pause_a_little();
    if (!something_for(who)) {
      pthread_mutex_lock(&sleeping);
      atomic_fetch_add(&asleep, 1);
      while (!something_for(who)) pthread_cond_wait(&wake, &sleeping);
      atomic_fetch_sub(&asleep, 1);
      pthread_mutex_unlock(&sleeping);
    }
    take_items(who);
  }
  return 0;
}

/* A forked process has the caller's thread alone. */
static void start_anew(void) {
  started = 0;
  atomic_store(&asleep, 0);
  atomic_store(&left, 0);
  pthread_mutex_init(&in_use, 0);
  pthread_mutex_init(&sleeping, 0);
  pthread_cond_init(&wake, 0);
}

/* Signals stay the main thread's. Where a thread cannot be had, there are fewer. */
static void start(int helpers) {
  static int once;
  if (!once) once = 1, pthread_atfork(0, 0, start_anew);
  sigset_t every, before;
  sigfillset(&every);
  pthread_sigmask(SIG_SETMASK, &every, &before);
  while (started < helpers) {
    pthread_t thread;
    if (pthread_create(&thread, 0, help, (void *)(intptr_t)(started + 1))) break;
    pthread_detach(thread);
    started++;
  }
  pthread_sigmask(SIG_SETMASK, &before, 0);
}

void share_work(Work work, void *told, int64_t items, int threads) {
  if (threads > HELPERS + 1) threads = HELPERS + 1;
  if (threads < 2 || items < 2 || items >= MOST_ITEMS || pthread_mutex_trylock(&in_use)) {
    for (int64_t item = 0; item < items; item++) work(told, item, 0);
    return;
  }
  start(threads - 1);
  work_at_hand = work, told_at_hand = told;
  atomic_store(&done, 0);
  atomic_store(&left, left_of(threads, items, 0));
  if (atomic_load(&asleep)) {
    pthread_mutex_lock(&sleeping);
    pthread_cond_broadcast(&wake);
    pthread_mutex_unlock(&sleeping);
  }
  take_items(0);
  for (int look = 0; atomic_load(&done) < items; look++)
    if (look < LOOKS) pause_a_little();
    else sched_yield();
  pthread_mutex_unlock(&in_use);
}
