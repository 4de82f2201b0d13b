from collections.abc import Sequence
from typing import Any, Literal, overload

from numpy.typing import ArrayLike

from .._plans import MaskPlan
from .._typing import Array, Causal, Index, Window

ROW_STATISTICS: tuple[str, ...]
SINK_SIZE: int

@overload
def softmax_attention(
    q: ArrayLike, k: ArrayLike, v: ArrayLike, *, scale: float | None = None, causal: Causal = False,
    mask: ArrayLike | MaskPlan | None = None, bias: ArrayLike | None = None, window: Window | None = None,
    alibi_slopes: ArrayLike | None = None, softcap: float | None = None, sink_logits: ArrayLike | None = None,
    dropout_mask: ArrayLike | None = None, dropout_p: float = 0.0, q_offset: int | None = None, return_lse: Literal[False] = False,
    return_weights: Literal[False] = False, stats: tuple[()] = (), out: Array | None = None,
) -> Array: ...
@overload
def softmax_attention(
    q: ArrayLike, k: ArrayLike, v: ArrayLike, *, scale: float | None = None, causal: Causal = False,
    mask: ArrayLike | MaskPlan | None = None, bias: ArrayLike | None = None, window: Window | None = None,
    alibi_slopes: ArrayLike | None = None, softcap: float | None = None, sink_logits: ArrayLike | None = None,
    dropout_mask: ArrayLike | None = None, dropout_p: float = 0.0, q_offset: int | None = None, return_lse: bool = False,
    return_weights: bool = False, stats: str | Sequence[str] = (), out: Array | None = None,
) -> Any: ...

def attention_logits(
    q: ArrayLike, k: ArrayLike, *, scale: float | None = None, causal: Causal = False, mask: ArrayLike | MaskPlan | None = None,
    bias: ArrayLike | None = None, window: Window | None = None, alibi_slopes: ArrayLike | None = None, softcap: float | None = None,
    q_offset: int | None = None, out: Array | None = None,
) -> Array: ...

def attention_weights(
    q: ArrayLike, k: ArrayLike, *, rows: Index | None = None, cols: Index | None = None, heads: Index | None = None,
    lse: ArrayLike | None = None, scale: float | None = None, causal: Causal = False, mask: ArrayLike | MaskPlan | None = None,
    bias: ArrayLike | None = None, window: Window | None = None, alibi_slopes: ArrayLike | None = None, softcap: float | None = None,
    sink_logits: ArrayLike | None = None, q_offset: int | None = None, out: Array | None = None,
) -> Array: ...
