/* madvise and MADV_HUGEPAGE are hidden under -std=c11 without this. */
#define _GNU_SOURCE
#include "memory.h"
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { CACHE_LINE = 64 };

/* Scratch of several megabytes is read with strides that miss the TLB on 4 KB pages; huge pages also replace
 * hundreds of page faults at the first touch by a few. */
#define HUGE_PAGE ((size_t)2 << 20)
#define HUGE_FROM ((size_t)4 << 20)

static atomic_long live_blocks;
static atomic_long fail_countdown; /* 0 = off, k = the k-th allocation from now fails */

/* Counts down atomically, so that exactly one allocation fails whichever threads allocate. */
static int hook_says_fail(void)
{
    long left = atomic_load_explicit(&fail_countdown, memory_order_relaxed);
    while (left > 0) {
        if (atomic_compare_exchange_weak_explicit(&fail_countdown, &left, left - 1, memory_order_relaxed,
                                                  memory_order_relaxed))
            return left == 1;
    }
    return 0;
}

void *ak_alloc(size_t bytes)
{
    if (hook_says_fail() || bytes > (size_t)PTRDIFF_MAX / 2) return NULL;
    size_t align = bytes >= HUGE_FROM ? HUGE_PAGE : (size_t)CACHE_LINE;
    size_t padded = bytes == 0 ? (size_t)CACHE_LINE : (bytes + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
    void *block = NULL;
    if (posix_memalign(&block, align, padded) != 0) return NULL;
#ifdef MADV_HUGEPAGE
    /* Advice only: where the kernel has no huge pages the block stays as it is. */
    if (align == HUGE_PAGE) (void)madvise(block, padded, MADV_HUGEPAGE);
#endif
#ifdef AK_DEBUG
    memset(block, 0xFF, padded); /* all ones is a NaN in every float format and -1 in every integer */
#endif
    atomic_fetch_add_explicit(&live_blocks, 1, memory_order_relaxed);
    return block;
}

void *ak_alloc_array(size_t count, size_t size)
{
    if (size != 0 && count > SIZE_MAX / size) return NULL;
    return ak_alloc(count * size);
}

void ak_free(void *block)
{
    if (block == NULL) return;
    atomic_fetch_sub_explicit(&live_blocks, 1, memory_order_relaxed);
    free(block);
}

void ak_alloc_fail_after(long k) { atomic_store_explicit(&fail_countdown, k > 0 ? k : 0, memory_order_relaxed); }

long ak_alloc_live(void) { return atomic_load_explicit(&live_blocks, memory_order_relaxed); }
