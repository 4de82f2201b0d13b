from . import catalogue as catalogue
from . import datasets as datasets
from . import exact as exact
from . import masks as masks
from . import plot as plot
from . import reference as reference
from . import report as report
from . import testing as testing
from ._runtime import cpu_info as cpu_info
from ._runtime import get_num_threads as get_num_threads
from ._runtime import set_num_threads as set_num_threads
from ._runtime import show_versions as show_versions
from ._runtime import threads as threads
from ._version import __version__ as __version__
from .catalogue import catalog as catalog
from .exact import (
    AttentionState as AttentionState,
    attention_block_mass as attention_block_mass,
    attention_cascade as attention_cascade,
    attention_column_stats as attention_column_stats,
    attention_logits as attention_logits,
    attention_row_stats as attention_row_stats,
    attention_state as attention_state,
    attention_weights as attention_weights,
    block_mask_to_csr as block_mask_to_csr,
    block_mask_to_dense as block_mask_to_dense,
    block_sparse_attention as block_sparse_attention,
    butterfly_block_mask as butterfly_block_mask,
    cascade_counts as cascade_counts,
    causal_mask as causal_mask,
    document_mask as document_mask,
    flash_attention_tiled as flash_attention_tiled,
    flash_block_sizes as flash_block_sizes,
    flash_traffic as flash_traffic,
    mask_tile_stats as mask_tile_stats,
    merge_partials as merge_partials,
    merge_states as merge_states,
    paged_attention as paged_attention,
    receptive_depth as receptive_depth,
    receptive_field as receptive_field,
    row_state_finish as row_state_finish,
    row_state_init as row_state_init,
    row_state_merge as row_state_merge,
    row_state_update as row_state_update,
    sliding_window_mask as sliding_window_mask,
    softmax_attention as softmax_attention,
    varlen_attention as varlen_attention,
)

__all__ = [
    "AttentionState", "attention_block_mass", "attention_cascade", "attention_column_stats", "attention_logits", "attention_row_stats",
    "attention_state", "attention_weights", "block_mask_to_csr", "block_mask_to_dense", "block_sparse_attention", "butterfly_block_mask",
    "cascade_counts", "causal_mask", "document_mask", "flash_attention_tiled", "flash_block_sizes", "flash_traffic", "mask_tile_stats",
    "merge_partials", "merge_states", "paged_attention", "receptive_depth", "receptive_field", "row_state_finish", "row_state_init",
    "row_state_merge", "row_state_update", "sliding_window_mask", "softmax_attention", "varlen_attention", "catalog", "cpu_info",
    "get_num_threads", "masks", "set_num_threads", "show_versions", "threads",
]

def __dir__() -> list[str]: ...
