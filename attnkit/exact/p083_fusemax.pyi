from numpy.typing import ArrayLike

from .._typing import Array

def attention_cascade(
    q: ArrayLike, k: ArrayLike, v: ArrayLike, *, passes: int = 1, block: int = 64, defer_division: bool = True,
    scale: float | None = None, out: Array | None = None,
) -> Array: ...

def cascade_counts(
    Lq: int, Lk: int, d: int, dv: int, *, passes: int = 1, block: int = 64, defer_division: bool = True,
) -> dict[str, int]: ...
