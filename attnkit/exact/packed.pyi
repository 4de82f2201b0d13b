from collections.abc import Iterable
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike

from .._plans import MaskPlan
from .._typing import Array, Causal, Window

class AttentionState:
    m: Array
    l: Array
    acc: Array
    def __init__(self, m: Array, l: Array, acc: Array, dtype: np.dtype[Any] | None = None) -> None: ...
    def finish(self, *, sink_logits: ArrayLike | None = None) -> tuple[Array, Array]: ...

@overload
def varlen_attention(
    q: ArrayLike, k: ArrayLike, v: ArrayLike, cu_seqlens_q: ArrayLike, cu_seqlens_k: ArrayLike, *, causal: Causal = False,
    return_lse: Literal[False] = False, scale: float | None = None, window: Window | None = None, softcap: float | None = None,
    alibi_slopes: ArrayLike | None = None, sink_logits: ArrayLike | None = None, out: Array | None = None,
) -> Array: ...
@overload
def varlen_attention(
    q: ArrayLike, k: ArrayLike, v: ArrayLike, cu_seqlens_q: ArrayLike, cu_seqlens_k: ArrayLike, *, causal: Causal = False,
    return_lse: bool = False, scale: float | None = None, window: Window | None = None, softcap: float | None = None,
    alibi_slopes: ArrayLike | None = None, sink_logits: ArrayLike | None = None, out: Array | None = None,
) -> Any: ...

@overload
def paged_attention(
    q: ArrayLike, k_pages: ArrayLike, v_pages: ArrayLike, page_table: ArrayLike, seq_lens: ArrayLike, *, causal: Causal = True,
    return_lse: Literal[False] = False, scale: float | None = None, window: Window | None = None, softcap: float | None = None,
    alibi_slopes: ArrayLike | None = None, sink_logits: ArrayLike | None = None, out: Array | None = None,
) -> Array: ...
@overload
def paged_attention(
    q: ArrayLike, k_pages: ArrayLike, v_pages: ArrayLike, page_table: ArrayLike, seq_lens: ArrayLike, *, causal: Causal = True,
    return_lse: bool = False, scale: float | None = None, window: Window | None = None, softcap: float | None = None,
    alibi_slopes: ArrayLike | None = None, sink_logits: ArrayLike | None = None, out: Array | None = None,
) -> Any: ...

def attention_state(
    q: ArrayLike, k: ArrayLike, v: ArrayLike, *, scale: float | None = None, causal: Causal = False,
    mask: ArrayLike | MaskPlan | None = None, bias: ArrayLike | None = None, window: Window | None = None,
    alibi_slopes: ArrayLike | None = None, softcap: float | None = None, q_offset: int | None = None,
) -> AttentionState: ...

def merge_states(states: Iterable[AttentionState]) -> AttentionState: ...
