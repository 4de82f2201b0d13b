"""Types that the stubs share. Nothing imports this at run time."""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from numpy.typing import ArrayLike, NDArray

Array: TypeAlias = NDArray[Any]
Causal: TypeAlias = bool | Literal["lower_right", "upper_left"]
Index: TypeAlias = int | slice | ArrayLike
State: TypeAlias = dict[str, Array]
Window: TypeAlias = Sequence[int | None]
