from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._plans import MaskPlan
from .._typing import Array, Causal

@overload
def flash_attention_tiled(
    q: ArrayLike, k: ArrayLike, v: ArrayLike, *, block_q: int = 64, block_k: int = 64, scale: float | None = None,
    causal: Causal = False, mask: ArrayLike | MaskPlan | None = None, return_lse: Literal[False] = False,
    return_tiles: Literal[False] = False, out: Array | None = None,
) -> Array: ...
@overload
def flash_attention_tiled(
    q: ArrayLike, k: ArrayLike, v: ArrayLike, *, block_q: int = 64, block_k: int = 64, scale: float | None = None,
    causal: Causal = False, mask: ArrayLike | MaskPlan | None = None, return_lse: bool = False, return_tiles: bool = False,
    out: Array | None = None,
) -> Any: ...

def flash_block_sizes(sram_elems: int, d: int) -> tuple[int, int]: ...

def flash_traffic(
    Lq: int, Lk: int, d: int, dv: int | None = None, *, block_q: int = 64, block_k: int = 64,
    algo: Literal["fa2", "fa1", "standard"] = "fa2",
) -> int: ...

def butterfly_block_mask(n_blocks: int, *, max_stride: int | None = None, global_blocks: int = 0) -> NDArray[np.bool_]: ...
