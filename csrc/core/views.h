/* Strided views: how arrays reach the core. No ownership; strides in bytes, any sign, zero allowed. */
#ifndef AK_CORE_VIEWS_H
#define AK_CORE_VIEWS_H
#include <stddef.h>
#include <stdint.h>

typedef enum ak_dtype { AK_F32, AK_F64, AK_F16, AK_BF16, AK_BOOL, AK_I64 } ak_dtype;

/* A (rows, cols) matrix of one head. */
typedef struct ak_matrix {
    const char *data;
    ptrdiff_t row_stride, col_stride; /* bytes */
    ak_dtype dtype;
} ak_matrix;

#define AK_MAX_BATCH_DIMS 32

/* Keys are cut in tiles at absolute multiples of AK_TILE: plans and kernels mean the same tiles. */
enum { AK_TILE = 256, AK_TILE_WORDS = AK_TILE / 64 };
#endif
