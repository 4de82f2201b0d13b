#define _GNU_SOURCE /* CLOCK_MONOTONIC_COARSE */
#include "threads.h"
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>
#include "fpmode.h"
#include "quota.h"
#ifdef _OPENMP
#include <omp.h>
#endif

enum {
    POLL_NS = 50 * 1000 * 1000, /* the caller is asked at most this often whether to stop */
    SPIN_NS = 50 * 1000         /* at the end of a run the calling thread spins this long before it sleeps */
};

struct ak_run {
    atomic_ptrdiff_t next;  /* first task that nobody has taken */
    atomic_int stop;        /* non-zero: take no more tasks, leave running ones */
    atomic_int status;      /* first failure, else AK_OK */
    atomic_int busy;        /* workers other than the calling thread that may hold a task */
    atomic_int caller_waits;
    ptrdiff_t n_tasks;
    ak_task_fn fn;
    void *ctx;
    const ak_poll *poll;
    int64_t next_poll;      /* only the calling thread reads and writes it */
    pthread_mutex_t mutex;  /* guards the sleep of the calling thread; used by teams of more than one */
    pthread_cond_t idle;
};

/* ---- how many threads ------------------------------------------------------------------------------------- */

static _Thread_local int wanted_threads; /* 0 = the default */

int ak_threads_have_openmp(void)
{
#ifdef _OPENMP
    return 1;
#else
    return 0;
#endif
}

int ak_threads_set(int n)
{
    int before = wanted_threads;
    wanted_threads = n > 0 ? n : 0;
    return before;
}

#ifdef _OPENMP
/* The quota takes a dozen file operations, so it is read once; threads that race here store the same value. */
static int cached_quota(void)
{
    static atomic_int cached = -1;
    int quota = atomic_load_explicit(&cached, memory_order_relaxed);
    if (quota < 0) {
        quota = ak_cgroup_quota("");
        atomic_store_explicit(&cached, quota, memory_order_relaxed);
    }
    return quota;
}

int ak_threads_get(void)
{
    if (wanted_threads > 0) return wanted_threads;
    int n = omp_get_max_threads(); /* OMP_NUM_THREADS, or what threadpoolctl set for this thread */
    int cpus = ak_cpus_affinity();
    int quota = cached_quota();
    if (cpus < n) n = cpus;
    if (quota > 0 && quota < n) n = quota;
    return n > 0 ? n : 1;
}
#else
int ak_threads_get(void) { return wanted_threads > 0 ? wanted_threads : 1; }
#endif

/* ---- fork --------------------------------------------------------------------------------------------------- */

#if defined(_OPENMP) && defined(__GNUC__) && !defined(__clang__)
/* GNU libgomp keeps its workers between regions; after fork they are gone and the child's next region waits for them
 * for ever. Releasing the pool just before the fork lets parent and child build new ones. LLVM's libomp handles fork
 * itself. Inside a parallel region the call refuses, which is harmless: such a child may not use OpenMP at all. */
static void release_pool_before_fork(void) { (void)omp_pause_resource_all(omp_pause_soft); }

static void register_fork_handler(void) { (void)pthread_atfork(release_pool_before_fork, NULL, NULL); }

void ak_threads_init(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, register_fork_handler);
}
#else
void ak_threads_init(void) {}
#endif

/* ---- stopping ------------------------------------------------------------------------------------------------ */

static int64_t now_ns(clockid_t clock)
{
    struct timespec t;
    (void)clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* A tick of some milliseconds is fine enough for POLL_NS and several times cheaper to read. */
#ifdef CLOCK_MONOTONIC_COARSE
#define POLL_CLOCK CLOCK_MONOTONIC_COARSE
#else
#define POLL_CLOCK CLOCK_MONOTONIC
#endif

static void stop_with(ak_run *run, ak_status status)
{
    int none = AK_OK;
    (void)atomic_compare_exchange_strong(&run->status, &none, (int)status);
    atomic_store(&run->stop, 1);
}

/* Calling thread only. */
static void poll_caller(ak_run *run)
{
    if (run->poll == NULL || run->poll->should_stop == NULL) return;
    int64_t now = now_ns(POLL_CLOCK);
    if (now < run->next_poll) return;
    if (run->poll->should_stop(run->poll->arg)) stop_with(run, AK_INTERRUPTED);
    run->next_poll = now_ns(POLL_CLOCK) + POLL_NS; /* asked again: the caller may have waited for a lock */
    if (run->poll->due) *run->poll->due = run->next_poll;
}

int ak_run_stopped(ak_run *run, int thread)
{
    if (atomic_load_explicit(&run->stop, memory_order_relaxed)) return 1;
    if (thread != 0) return 0;
    poll_caller(run);
    return atomic_load_explicit(&run->stop, memory_order_relaxed);
}

void ak_run_fail(ak_run *run, ak_status status) { stop_with(run, status == AK_OK ? AK_CALLBACK_FAILED : status); }

/* ---- running --------------------------------------------------------------------------------------------------- */

static void take_tasks(ak_run *run, int thread)
{
    ak_fpmode found = ak_fpmode_enter();
    while (!ak_run_stopped(run, thread)) {
        ptrdiff_t task = atomic_fetch_add(&run->next, 1);
        if (task >= run->n_tasks) break;
        run->fn(run->ctx, task, thread, run);
    }
    ak_fpmode_leave(found);
}

#ifdef _OPENMP
static void pause_cpu(void)
{
#if defined(__x86_64__)
    __asm__ volatile("pause");
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* A worker counts itself busy before it takes a number, so once the calling thread has seen the last number go, busy
 * == 0 means that every task is finished. */
static void work(ak_run *run, int thread)
{
    atomic_fetch_add(&run->busy, 1);
    take_tasks(run, thread);
    if (atomic_fetch_sub(&run->busy, 1) == 1 && atomic_load(&run->caller_waits)) {
        pthread_mutex_lock(&run->mutex);
        pthread_cond_signal(&run->idle);
        pthread_mutex_unlock(&run->mutex);
    }
}

/* The calling thread has no task left. It must not wait in the region's barrier, where it could not ask about
 * Ctrl-C: it spins for short runs, then sleeps until the last worker wakes it or the next poll is due. */
static void wait_for_workers(ak_run *run)
{
    int64_t spin_until = now_ns(CLOCK_MONOTONIC) + SPIN_NS;
    do {
        for (int i = 0; i < 32; i++) {
            if (atomic_load(&run->busy) == 0) return;
            pause_cpu();
        }
    } while (now_ns(CLOCK_MONOTONIC) < spin_until);

    atomic_store(&run->caller_waits, 1);
    while (atomic_load(&run->busy) != 0) {
        int64_t wake = now_ns(CLOCK_MONOTONIC) + POLL_NS / 2;
        struct timespec until = {.tv_sec = (time_t)(wake / 1000000000), .tv_nsec = (long)(wake % 1000000000)};
        pthread_mutex_lock(&run->mutex);
        /* Checked again under the lock: the last worker signals under it, so its signal cannot fall in between. */
        if (atomic_load(&run->busy) != 0) (void)pthread_cond_timedwait(&run->idle, &run->mutex, &until);
        pthread_mutex_unlock(&run->mutex);
        (void)ak_run_stopped(run, 0);
    }
}

static ak_status init_sleep(ak_run *run)
{
    pthread_condattr_t attr;
    if (pthread_condattr_init(&attr) != 0) return AK_NO_MEMORY;
    int failed = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    failed = failed || pthread_cond_init(&run->idle, &attr) != 0;
    (void)pthread_condattr_destroy(&attr);
    if (failed) return AK_NO_MEMORY;
    if (pthread_mutex_init(&run->mutex, NULL) != 0) {
        (void)pthread_cond_destroy(&run->idle);
        return AK_NO_MEMORY;
    }
    return AK_OK;
}

static ak_status run_team(ak_run *run, int n_threads)
{
    AK_TRY(init_sleep(run));
    /* The runtime may give fewer threads than asked; the counter hands out all tasks in any case. */
#pragma omp parallel num_threads(n_threads)
    {
        int thread = omp_get_thread_num();
        if (thread != 0) {
            work(run, thread);
        } else {
            take_tasks(run, 0);
            wait_for_workers(run);
        }
    }
    (void)pthread_cond_destroy(&run->idle);
    (void)pthread_mutex_destroy(&run->mutex);
    return AK_OK;
}
#endif

ak_status ak_run_tasks(ptrdiff_t n_tasks, int n_threads, ak_task_fn fn, void *ctx, const ak_poll *poll)
{
    ak_run run = {.n_tasks = n_tasks, .fn = fn, .ctx = ctx, .poll = poll, .status = AK_OK};
    if (poll != NULL) {
        run.next_poll = poll->due && *poll->due ? *poll->due : now_ns(POLL_CLOCK) + POLL_NS;
        if (poll->due) *poll->due = run.next_poll;
    }
    if (n_threads > n_tasks) n_threads = (int)n_tasks;
#ifdef _OPENMP
    if (n_threads > 1) {
        AK_TRY(run_team(&run, n_threads));
        return (ak_status)atomic_load(&run.status);
    }
#endif
    take_tasks(&run, 0);
    return (ak_status)atomic_load(&run.status);
}
