/* The core by itself: tasks, stopping, floating-point mode, scratch memory. Prints one line per check; exit status 0
 * when all hold. Built for the machine at hand and for AArch64 by .ci/c_tests. */
#include <fenv.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include "../../csrc/core/cpu.h"
#include "../../csrc/core/memory.h"
#include "../../csrc/core/status.h"
#include "../../csrc/core/threads.h"

static int failures;

static void check(int holds, const char *what)
{
    printf("%s: %s\n", holds ? "ok" : "FAILED", what);
    failures += !holds;
}

enum { N_TASKS = 1000 };

typedef struct counts {
    atomic_int runs[N_TASKS];
    atomic_int total, bad_thread, flushed;
    int n_threads, fail_at;
} counts;

static void count_task(void *ctx, ptrdiff_t task, int thread, ak_run *run)
{
    counts *c = ctx;
    volatile float smallest_normal = 0x1p-126f;
    if (smallest_normal * 0.5f == 0.0f) atomic_fetch_add(&c->flushed, 1);
    if (thread < 0 || thread >= c->n_threads) atomic_fetch_add(&c->bad_thread, 1);
    atomic_fetch_add(&c->runs[task], 1);
    atomic_fetch_add(&c->total, 1);
    if (task == c->fail_at) ak_run_fail(run, AK_NO_MEMORY);
}

/* Works until it is told to stop. */
static void endless_task(void *ctx, ptrdiff_t task, int thread, ak_run *run)
{
    (void)ctx;
    (void)task;
    while (!ak_run_stopped(run, thread)) continue;
}

static int stop_at_third_poll(void *arg)
{
    int *polls = arg;
    return ++*polls >= 3;
}

/* The bits that switch flush-to-zero on, and the control word as it is now. */
#if defined(__x86_64__)
static uint64_t control_word(void)
{
    uint32_t word;
    __asm__ volatile("stmxcsr %0" : "=m"(word));
    return word & ~0x3Fu; /* without the exception flags */
}
static void set_flush_to_zero(int on)
{
    uint32_t word = on ? 0x9FC0 : 0x1F80;
    __asm__ volatile("ldmxcsr %0" : : "m"(word));
}
#elif defined(__aarch64__)
static uint64_t control_word(void)
{
    uint64_t word;
    __asm__ volatile("mrs %0, fpcr" : "=r"(word));
    return word;
}
static void set_flush_to_zero(int on)
{
    uint64_t word = on ? (uint64_t)1 << 24 : 0;
    __asm__ volatile("msr fpcr, %0" : : "r"(word));
}
#endif

static void test_tasks(int n_threads, int flush)
{
    static counts c;
    memset(&c, 0, sizeof c);
    c.n_threads = n_threads;
    c.fail_at = -1;
    set_flush_to_zero(flush);
    uint64_t before = control_word();
    ak_status status = ak_run_tasks(N_TASKS, n_threads, count_task, &c, NULL);
    uint64_t after = control_word();
    set_flush_to_zero(0);
    int once = 1;
    for (int i = 0; i < N_TASKS; i++) once &= c.runs[i] == 1;
    check(status == AK_OK && once && c.total == N_TASKS, "every task runs exactly once");
    check(c.bad_thread == 0, "thread numbers are below the number asked for");
    check(c.flushed == 0, "subnormals survive in every task");
    check(before == after, "the caller's floating-point mode is given back");

    memset(&c, 0, sizeof c);
    c.n_threads = n_threads;
    c.fail_at = 10;
    status = ak_run_tasks(N_TASKS, n_threads, count_task, &c, NULL);
    check(status == AK_NO_MEMORY && c.total >= 11 - n_threads && c.total < N_TASKS, "a failure stops the run and is returned");

    int polls = 0;
    ak_poll poll = {.should_stop = stop_at_third_poll, .arg = &polls};
    status = ak_run_tasks(2 * n_threads, n_threads, endless_task, NULL, &poll);
    check(status == AK_INTERRUPTED && polls == 3, "the caller is asked, and its answer stops all threads");
    check(ak_run_tasks(0, n_threads, count_task, &c, NULL) == AK_OK, "no task is no work");
}

static void test_memory(void)
{
    int aligned = 1;
    for (size_t bytes = 0; bytes < (size_t)20 << 20; bytes = bytes * 3 + 1) {
        void *block = ak_alloc(bytes);
        aligned &= block != NULL && (uintptr_t)block % 64 == 0;
        if (block != NULL) memset(block, 1, bytes);
        ak_free(block);
    }
    check(aligned, "blocks are aligned to cache lines and writable");
    check(ak_alloc((size_t)PTRDIFF_MAX) == NULL, "an absurd size is refused");
    check(ak_alloc_array(SIZE_MAX / 2, 3) == NULL, "a product that overflows is refused");
    ak_alloc_fail_after(2);
    void *first = ak_alloc(8), *second = ak_alloc(8), *third = ak_alloc(8);
    check(first != NULL && second == NULL && third != NULL, "the hook fails the k-th allocation, once");
    check(ak_alloc_live() == 2, "blocks in use are counted");
    ak_free(first);
    ak_free(third);
    ak_free(NULL);
    check(ak_alloc_live() == 0, "and discounted");
}

static void test_targets(void)
{
    check(ak_isa_usable(AK_ISA_GENERIC), "the plain C target is usable");
    check(ak_isa_force("no such target") == -1 && ak_isa_force("generic") == 0, "a target is forced by its word");
    check(ak_isa_chosen() == AK_ISA_GENERIC, "and runs");
    check(ak_isa_force(NULL) == 0 && ak_isa_usable(ak_isa_chosen()), "then the best one again");
    int all = 1;
    for (int s = 0; s < AK_STATUS_COUNT; s++) all &= strcmp(ak_status_words((ak_status)s), "unknown status") != 0;
    check(all && strcmp(ak_status_words((ak_status)99), "unknown status") == 0, "every status has its words");
}

int main(void)
{
    ak_threads_init();
    for (int n_threads = 1; n_threads <= 4; n_threads++) {
        test_tasks(n_threads, 0);
        test_tasks(n_threads, 1);
    }
    test_memory();
    test_targets();
    return failures != 0;
}
