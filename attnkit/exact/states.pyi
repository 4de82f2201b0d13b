from collections.abc import Sequence
from typing import Any, Literal, overload

from numpy.typing import ArrayLike

from .._typing import Array, State

def shifted_exp(s: Array, m: Array) -> tuple[Array, Array]: ...
def weighted_rows(e: Array, use: Array, v: Array) -> Array: ...

def row_state_init(n_rows: int, *, dv: int = 0, n_groups: int = 0, topk: int = 0) -> State: ...

def row_state_update(
    state: State, s_block: ArrayLike, j0: int, pos: ArrayLike, *, v_block: ArrayLike | None = None,
    groups_block: ArrayLike | None = None,
) -> State: ...

def row_state_merge(x: State, y: State) -> State: ...

def row_state_finish(st: State, *, sink_logits: ArrayLike | None = None) -> dict[str, Array]: ...

@overload
def merge_partials(
    outs: ArrayLike | Sequence[ArrayLike], lses: ArrayLike | Sequence[ArrayLike], *, axis: int = 0, return_lse: Literal[False],
    out: Array | None = None,
) -> Array: ...
@overload
def merge_partials(
    outs: ArrayLike | Sequence[ArrayLike], lses: ArrayLike | Sequence[ArrayLike], *, axis: int = 0, return_lse: bool = True,
    out: Array | None = None,
) -> Any: ...
