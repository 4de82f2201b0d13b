/* Threads: the only place in csrc/ that includes omp.h.
 *
 * A run hands out task numbers 0 .. n_tasks-1 in ascending order to the threads of a team. Which thread gets
 * which task is free, so a task must compute the same bytes whoever runs it. Each thread sets the default
 * floating-point mode (round to nearest, no flush-to-zero, exceptions masked) at its start and restores the
 * mode it found: neither the caller's mode nor a worker's changes a byte, and no exception flag leaks out. */
#ifndef AK_CORE_THREADS_H
#define AK_CORE_THREADS_H
#include <stddef.h>
#include <stdint.h>
#include "status.h"

/* Number of threads a call may use: ak_threads_set's value for the calling thread if set, else the smallest of
 * the CPU affinity mask, the cgroup quota (v1 and v2 of the process's own group, rounded up) and
 * omp_get_max_threads() of the calling thread (OMP_NUM_THREADS, or what threadpoolctl set). */
int ak_threads_get(void);
/* For the calling thread only; n >= 1, 0 returns to the default. The value before, 0 when it was the default. */
int ak_threads_set(int n);
int ak_threads_have_openmp(void);
/* Once, when the extension is loaded: keeps forked children from waiting for threads that they do not have. */
void ak_threads_init(void);

/* How the caller of a run is asked whether to stop: called on the calling thread only, at most about every
 * 50 ms, never from a worker. Returns non-zero to stop. May be NULL. */
typedef struct ak_poll {
    int (*should_stop)(void *arg);
    void *arg;
    int64_t *due; /* when to ask next, for a call that makes several runs, however short; 0 = not asked yet. May be NULL. */
} ak_poll;

typedef struct ak_run ak_run; /* one running team; lives on the caller's stack inside ak_run_tasks */

/* task: its number; thread: 0 .. n_threads-1, for per-thread scratch. */
typedef void (*ak_task_fn)(void *ctx, ptrdiff_t task, int thread, ak_run *run);

/* Run all tasks; AK_INTERRUPTED when poll said stop. With n_threads 1 no OpenMP call is made at all.
 * The calling thread does not block in a barrier while others work: it keeps polling. */
ak_status ak_run_tasks(ptrdiff_t n_tasks, int n_threads, ak_task_fn fn, void *ctx, const ak_poll *poll);

/* Asked by tasks once per tile (some tens of microseconds): non-zero = leave the task now, results are void.
 * Cheap: one relaxed load, and on the calling thread a clock look. */
int ak_run_stopped(ak_run *run, int thread);
/* A task reports failure; the first one wins and stops the run. */
void ak_run_fail(ak_run *run, ak_status status);

#endif
