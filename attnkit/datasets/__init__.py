"""Attention recorded from pretrained models, shipped inside the package.

Two recordings of q, k and v, taken where the model's own attention function receives them, on the same three
sentences:

* ``"minilm-l6"``: all-MiniLM-L6-v2, a bidirectional encoder; all 6 layers, 12 heads of 32 features.
* ``"smollm2-135m"``: SmolLM2-135M-Instruct, a causal decoder with rotary positions and grouped heads; layers
  0, 6, 12, 17, 23, 29 of 30, 9 query heads and 3 key heads of 64 features, q and k after rotation. The weights
  are those of a Q4_1 quantised file, dequantised, so this is the attention of the quantised model.

They are stored as float16. ``tools/record_models.py`` in the repository makes them again and says how they were
checked against the models; ``LICENSES.md`` in this folder has the licences.

The files have the format that ``python -m attnkit report --npz FILE`` reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = ["Recording", "list_recorded", "load_recorded"]

_FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True, repr=False, eq=False)
class Recording:
    """The q, k, v of several layers of a model on one text.

    Attributes
    ----------
    name : str
        Name under which `load_recorded` finds it.
    q : ndarray, shape (layers, heads, length, features)
        Queries, after rotary positions if the model has them.
    k, v : ndarray, shape (layers, kv_heads, length, features)
        Keys and values; ``kv_heads`` divides ``heads``.
    tokens : list of str, length ``length``
        The tokens as text.
    layers : list of int
        The model's own numbers of the recorded layers, from 0.
    causal : bool
        Whether a token sees only itself and the tokens before it.
    scale : float
        Factor on the dot products.
    model, licence, source, text : str
        Name of the model, licence of the model, where its weights came from, and the text that it read.
    max_deviation : dict of str to float
        ``"map"`` and ``"output"``: by how much an attention weight, and an output (in units of max abs(v)),
        computed from these float16 arrays differs at most from what the model itself computed.
    """

    name: str
    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    tokens: list[str]
    layers: list[int]
    causal: bool
    scale: float
    model: str
    licence: str
    source: str
    text: str
    max_deviation: dict[str, float]

    def __repr__(self) -> str:
        n_layers, heads, length, features = self.q.shape
        kv_heads = self.k.shape[1]
        grouped = "" if kv_heads == heads else f" ({kv_heads} of keys)"
        text = self.text if len(self.text) <= 60 else self.text[:57] + "..."
        return (
            f"<Recording {self.name!r}: {self.model}, {'causal' if self.causal else 'bidirectional'}\n"
            f"  layers {', '.join(map(str, self.layers))}; {heads} heads{grouped}, {length} tokens, "
            f"{features} features, {self.q.dtype}\n"
            f"  q {self.q.shape}  k {self.k.shape}  v {self.v.shape}  scale {self.scale:.6g}\n"
            f"  {text!r}>"
        )


def list_recorded() -> list[str]:
    """Names of the recordings that ship with attnkit.

    Returns
    -------
    list of str
        In alphabetical order.

    Examples
    --------
    >>> import attnkit.datasets
    >>> attnkit.datasets.list_recorded()
    ['minilm-l6', 'smollm2-135m']
    """
    return sorted(path.stem for path in _FOLDER.glob("*.npz"))


def load_recorded(name: str, *, dtype=None) -> Recording:
    """Load the q, k, v of a pretrained model that ship with attnkit.

    Parameters
    ----------
    name : str
        One of `list_recorded()`.
    dtype : dtype, optional
        Floating type of q, k and v. None keeps them as stored, in float16; "float32" and "float64" hold the same
        values.

    Returns
    -------
    Recording
        Arrays of shape (layers, heads, length, features), tokens, and what is known about the model.

    Raises
    ------
    ValueError
        If there is no recording of that name (the message lists them), or `dtype` is not a floating type.

    Notes
    -----
    Reads one file of less than 1 MB; nothing is kept or shared, so the arrays may be written to.

    Examples
    --------
    >>> import attnkit.datasets
    >>> attnkit.datasets.load_recorded("smollm2-135m")
    <Recording 'smollm2-135m': HuggingFaceTB/SmolLM2-135M-Instruct, causal
      layers 0, 6, 12, 17, 23, 29; 9 heads (3 of keys), 64 tokens, 64 features, float16
      q (6, 9, 64, 64)  k (6, 3, 64, 64)  v (6, 3, 64, 64)  scale 0.125
      'The keeper of the lighthouse climbed the stairs at dusk, ...'>
    >>> attnkit.datasets.load_recorded("minilm-l6", dtype="float32").tokens[:5]
    ['[CLS]', 'the', 'keeper', 'of', 'the']
    """
    if name not in list_recorded():
        raise ValueError(f"name: there is no recording {name!r}; choose one of {', '.join(list_recorded())}")
    kind = np.dtype(np.float16 if dtype is None else dtype)
    if kind.kind != "f":
        raise ValueError(f"dtype: expected a floating type, got {kind}")
    with np.load(_FOLDER / f"{name}.npz", allow_pickle=False) as data:
        return Recording(
            name=name,
            q=data["q"].astype(kind, copy=False),
            k=data["k"].astype(kind, copy=False),
            v=data["v"].astype(kind, copy=False),
            tokens=data["tokens"].tolist(),
            layers=data["layers"].tolist(),
            causal=bool(data["causal"]),
            scale=float(data["scale"]),
            model=str(data["model"]),
            licence=str(data["licence"]),
            source=str(data["source"]),
            text=str(data["text"]),
            max_deviation=dict(zip(("map", "output"), data["deviation"].tolist(), strict=True)),
        )
