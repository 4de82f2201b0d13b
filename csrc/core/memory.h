/* Scratch memory: the only place in csrc/ that calls malloc and free.
 *
 * Blocks are 64-byte aligned and padded to whole cache lines. A call of the library takes all it needs before it
 * writes its first output byte, so a failure leaves the outputs untouched. Debug builds (AK_DEBUG) fill new
 * blocks with NaN patterns so that a read of unwritten scratch shows. */
#ifndef AK_CORE_MEMORY_H
#define AK_CORE_MEMORY_H
#include <stddef.h>

/* NULL when memory is short, when `bytes` is absurd (above PTRDIFF_MAX / 2), or when the test hook says so.
 * ak_alloc(0) gives a valid block. */
void *ak_alloc(size_t bytes);
/* count * size with the product checked; NULL on overflow. */
void *ak_alloc_array(size_t count, size_t size);
void ak_free(void *block); /* NULL is fine */

/* Test hook: the k-th allocation from now fails (k = 1 is the next one), once; 0 switches it off. */
void ak_alloc_fail_after(long k);
/* Blocks that are allocated and not freed yet: a leak check for tests. */
long ak_alloc_live(void);

#endif
