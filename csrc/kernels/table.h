/* The table of one real type (included once per real type, after the kernels). */
static const ak_tile_kernels R(tile_kernels) = {
    .lanes = VL,
    .pack_keys = R(pack_keys),
    .pack_values = R(pack_values),
    .values_finite = R(values_finite),
    .load_row = R(load_row),
    .store_row = R(store_row),
    .scores = R(scores),
    .score_ops = {
#define AK_SCORE_OP(NAME, function, masks) R(function),
#include "score_ops.def"
#undef AK_SCORE_OP
    },
    .mask = R(mask),
    .weights = R(weights),
    .values = R(values),
    .values_skipping = R(values_skipping),
    .top_scores = R(top_scores),
    .group_mass = R(group_mass),
    .sink_mass = R(sink_mass),
    .lanes_reset = R(lanes_reset),
    .lanes_finish = R(lanes_finish),
    .state_merge = R(state_merge),
    .state_sink = R(state_sink),
    .state_report = R(state_report),
    .state_indices = R(state_indices),
    .state_out = R(state_out),
    .probabilities = R(probabilities),
    .dropout = R(dropout),
    .columns = R(columns),
};
