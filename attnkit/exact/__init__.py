"""Exact softmax attention: operators, statistics, states, and the papers that compute it exactly."""

from ..mask_functions import (
    block_mask_to_csr,
    block_mask_to_dense,
    causal_mask,
    document_mask,
    mask_tile_stats,
    receptive_depth,
    receptive_field,
    sliding_window_mask,
)
from .blocks import block_sparse_attention
from .p083_fusemax import attention_cascade, cascade_counts
from .p085_flashattention import butterfly_block_mask, flash_attention_tiled, flash_block_sizes, flash_traffic
from .packed import AttentionState, attention_state, merge_states, paged_attention, varlen_attention
from .softmax import attention_logits, attention_weights, softmax_attention
from .states import merge_partials, row_state_finish, row_state_init, row_state_merge, row_state_update
from .statistics import attention_block_mass, attention_column_stats, attention_row_stats

__all__ = [
    "AttentionState",
    "attention_block_mass",
    "attention_cascade",
    "attention_column_stats",
    "attention_logits",
    "attention_row_stats",
    "attention_state",
    "attention_weights",
    "block_mask_to_csr",
    "block_mask_to_dense",
    "block_sparse_attention",
    "butterfly_block_mask",
    "cascade_counts",
    "causal_mask",
    "document_mask",
    "flash_attention_tiled",
    "flash_block_sizes",
    "flash_traffic",
    "mask_tile_stats",
    "merge_partials",
    "merge_states",
    "paged_attention",
    "receptive_depth",
    "receptive_field",
    "row_state_finish",
    "row_state_init",
    "row_state_merge",
    "row_state_update",
    "sliding_window_mask",
    "softmax_attention",
    "varlen_attention",
]
