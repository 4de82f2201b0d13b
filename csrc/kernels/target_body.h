/* Everything a target compiles: the kernels for float and for double, and the table that names them. A target file defines
 * AK_TARGET_<ISA>, includes this, and names its table with AK_TARGET_TABLE. */
#include "common.h"
#define AK_SIMD_PROBES simd_probes
#include "simd_probe.h"

#define AK_REAL_IS_FLOAT 1
#include "real.h"
#include "pack.h"
#include "gemm_tile.h"
#include "score_ops.h"
#include "weights.h"
#include "row_state.h"
#include "second_pass.h"
#include "table.h"
#undef AK_REAL_IS_FLOAT

#define AK_REAL_IS_FLOAT 0
#include "real.h"
#include "pack.h"
#include "gemm_tile.h"
#include "score_ops.h"
#include "weights.h"
#include "row_state.h"
#include "second_pass.h"
#include "table.h"

#define AK_TARGET_TABLE(isa, its_word)                                                                       \
    extern const ak_kernels ak_kernels_##isa;                                                                \
    const ak_kernels ak_kernels_##isa = {                                                                    \
        .word = its_word,                                                                                    \
        .f32 = &tile_kernels_f32,                                                                            \
        .f64 = &tile_kernels_f64,                                                                            \
        .probes = simd_probes,                                                                               \
        .n_probes = (int)(sizeof simd_probes / sizeof simd_probes[0]),                                       \
    }
