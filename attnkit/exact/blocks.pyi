from collections.abc import Sequence
from typing import Any, Literal, overload

from numpy.typing import ArrayLike

from .._plans import MaskPlan
from .._typing import Array, Causal, Window

@overload
def block_sparse_attention(
    q: ArrayLike, k: ArrayLike, v: ArrayLike, block_mask: ArrayLike, *, block_q: int = 64, block_k: int = 64, causal: Causal = False,
    mask: ArrayLike | MaskPlan | None = None, scale: float | None = None, bias: ArrayLike | None = None, window: Window | None = None,
    alibi_slopes: ArrayLike | None = None, softcap: float | None = None, sink_logits: ArrayLike | None = None,
    dropout_mask: ArrayLike | None = None, dropout_p: float = 0.0, q_offset: int | None = None, return_lse: Literal[False] = False,
    return_weights: Literal[False] = False, stats: tuple[()] = (), out: Array | None = None,
) -> Array: ...
@overload
def block_sparse_attention(
    q: ArrayLike, k: ArrayLike, v: ArrayLike, block_mask: ArrayLike, *, block_q: int = 64, block_k: int = 64, causal: Causal = False,
    mask: ArrayLike | MaskPlan | None = None, scale: float | None = None, bias: ArrayLike | None = None, window: Window | None = None,
    alibi_slopes: ArrayLike | None = None, softcap: float | None = None, sink_logits: ArrayLike | None = None,
    dropout_mask: ArrayLike | None = None, dropout_p: float = 0.0, q_offset: int | None = None, return_lse: bool = False,
    return_weights: bool = False, stats: str | Sequence[str] = (), out: Array | None = None,
) -> Any: ...
