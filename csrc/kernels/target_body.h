/* Everything a target compiles: the kernels for float and double, and the table that names them. A target file defines
 * AK_TARGET_<ISA> and AK_TARGET_TABLE(name), then includes this. */
#include "common.h"

#define AK_REAL_IS_FLOAT 1
#include "real.h"
#include "pack.h"
#include "gemm_tile.h"
#include "score_ops.h"
#include "weights.h"
#include "row_state.h"
#include "second_pass.h"
#undef AK_REAL_IS_FLOAT

#define AK_REAL_IS_FLOAT 0
#include "real.h"
#include "pack.h"
#include "gemm_tile.h"
#include "score_ops.h"
#include "weights.h"
#include "row_state.h"
#include "second_pass.h"

#define AK_SCORE_OP(NAME, function, masks) function##_f32,
#define AK_TILE_KERNELS(T, vl)                                                                                   \
    {                                                                                                            \
        .lanes = vl, .pack_keys = pack_keys_##T, .pack_values = pack_values_##T,                                 \
        .values_finite = values_finite_##T, .load_row = load_row_##T, .store_row = store_row_##T,                \
        .scores = scores_##T, .score_ops = AK_SCORE_OPS_##T, .mask = mask_##T, .weights = weights_##T,           \
        .values = values_##T, .values_skipping = values_skipping_##T, .top_scores = top_scores_##T,              \
        .group_mass = group_mass_##T, .sink_mass = sink_mass_##T, .lanes_reset = lanes_reset_##T,                \
        .lanes_finish = lanes_finish_##T, .state_merge = state_merge_##T, .state_sink = state_sink_##T,          \
        .state_report = state_report_##T, .state_out = state_out_##T, .probabilities = probabilities_##T,        \
        .dropout = dropout_##T, .columns = columns_##T,                                                          \
    }
