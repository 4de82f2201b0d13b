from collections.abc import Sequence
from typing import Literal

from numpy.typing import ArrayLike

from .._plans import MaskPlan
from .._typing import Array, Causal, Index, Window

def attention_row_stats(
    q: ArrayLike, k: ArrayLike, *, topk: int = 0, sink_size: int = 4, groups: ArrayLike | None = None, n_groups: int | None = None,
    sink_logits: ArrayLike | None = None, scale: float | None = None, causal: Causal = False, mask: ArrayLike | MaskPlan | None = None,
    bias: ArrayLike | None = None, window: Window | None = None, alibi_slopes: ArrayLike | None = None, softcap: float | None = None,
    q_offset: int | None = None, extra: str | Sequence[str] = (),
) -> dict[str, Array]: ...

def attention_column_stats(
    q: ArrayLike, k: ArrayLike, *, rows: Index | None = None, row_weights: ArrayLike | None = None, sink_logits: ArrayLike | None = None,
    lse: ArrayLike | None = None, scale: float | None = None, causal: Causal = False, mask: ArrayLike | MaskPlan | None = None,
    bias: ArrayLike | None = None, window: Window | None = None, alibi_slopes: ArrayLike | None = None, softcap: float | None = None,
    q_offset: int | None = None,
) -> dict[str, Array]: ...

def attention_block_mass(
    q: ArrayLike, k: ArrayLike, *, block_q: int, block_k: int, reduce: Literal["sum", "max", "mean", "row_mean"] = "sum",
    lse: ArrayLike | None = None, scale: float | None = None, causal: Causal = False, mask: ArrayLike | MaskPlan | None = None,
    bias: ArrayLike | None = None, window: Window | None = None, alibi_slopes: ArrayLike | None = None, softcap: float | None = None,
    sink_logits: ArrayLike | None = None, q_offset: int | None = None,
) -> Array: ...
