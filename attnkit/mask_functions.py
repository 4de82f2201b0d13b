"""Masks as boolean arrays (True = may attend), their block forms, and what they let through.

Query i sits at position i + offset and key j at position j; delta = i + offset - j.  The offset is Lk - Lq
(lower-right alignment) unless it is given.  For long sequences prefer the plans of :mod:`attnkit.masks`, which
cost bytes instead of Lq x Lk booleans.
"""

import numpy as np

from ._arguments import as_flag, as_int, as_integers, as_mask


def causal_mask(Lq, Lk=None, *, offset=None):
    """Causal mask: key j is visible to query i when j <= i + offset.

    Parameters
    ----------
    Lq : int
        Number of queries.
    Lk : int, optional
        Number of keys; None = Lq.
    offset : int, optional
        Position of query 0; None = Lk - Lq, so that the last query sees every key.

    Returns
    -------
    (Lq, Lk) ndarray of bool

    Raises
    ------
    TypeError, ValueError
        For arguments that are not integers, or negative lengths.

    Examples
    --------
    >>> from attnkit.mask_functions import causal_mask
    >>> causal_mask(2, 3).astype(int)
    array([[1, 1, 0],
           [1, 1, 1]])
    """
    rows, cols = _positions(Lq, Lk, offset)
    return cols <= rows


def sliding_window_mask(Lq, Lk=None, *, left, right=0, sinks=0, dilation=1, offset=None):
    """Window around the query's position, optionally dilated and with sink keys.

    Parameters
    ----------
    Lq, Lk : int
        Numbers of queries and keys; Lk None = Lq.
    left, right : int or None
        How many steps of `dilation` the window reaches back and ahead; None or a negative number = unbounded.
    sinks : int, optional
        The first `sinks` keys are visible too, unless they lie beyond the right edge of the window.
    dilation : int, optional
        Only every `dilation`-th key of the window counts, starting at the query's own position.
    offset : int, optional
        Position of query 0; None = Lk - Lq.

    Returns
    -------
    (Lq, Lk) ndarray of bool

    Raises
    ------
    TypeError, ValueError
        For arguments that are not integers or out of range.

    Notes
    -----
    True where -right * dilation <= delta <= left * dilation and delta is a multiple of dilation, or where
    j < sinks and delta >= -right * dilation.

    Examples
    --------
    >>> from attnkit.mask_functions import sliding_window_mask
    >>> sliding_window_mask(4, left=1, sinks=1).astype(int)
    array([[1, 0, 0, 0],
           [1, 1, 0, 0],
           [1, 1, 1, 0],
           [1, 0, 1, 1]])
    """
    rows, cols = _positions(Lq, Lk, offset)
    left, right = _reach("left", left), _reach("right", right)
    sinks = as_int("sinks", sinks, minimum=0)
    dilation = as_int("dilation", dilation, minimum=1)
    mask = np.ones((rows.shape[0], cols.shape[1]), bool)
    if left is not None:
        mask &= cols >= rows - left * dilation
    if dilation > 1:
        mask &= cols % dilation == rows % dilation
    mask |= cols < sinks
    if right is not None:
        mask &= cols <= rows + right * dilation
    return mask


def document_mask(seg_q, seg_k=None, *, causal=False):
    """Packed documents: a query sees the keys of its own document.

    Parameters
    ----------
    seg_q : (..., Lq) array_like of int
        Document number of each query.
    seg_k : (..., Lk) array_like of int, optional
        Document number of each key; None = `seg_q`.
    causal : bool, optional
        Whether lower-right causality applies as well.

    Returns
    -------
    (..., Lq, Lk) ndarray of bool

    Raises
    ------
    TypeError, ValueError
        For numbers that are not integers, or shapes that do not broadcast.

    Examples
    --------
    >>> from attnkit.mask_functions import document_mask
    >>> document_mask([0, 0, 1], causal=True).astype(int)
    array([[1, 0, 0],
           [1, 1, 0],
           [0, 0, 1]])
    """
    seg_q = as_integers("seg_q", seg_q)
    seg_k = seg_q if seg_k is None else as_integers("seg_k", seg_k)
    causal = as_flag("causal", causal)
    if not (seg_q.ndim and seg_k.ndim):
        raise ValueError(f"seg_q and seg_k need a token axis, got shapes {seg_q.shape} and {seg_k.shape}")
    try:
        mask = seg_q[..., :, None] == seg_k[..., None, :]
    except ValueError:
        raise ValueError(f"seg_q {seg_q.shape} and seg_k {seg_k.shape} do not broadcast in the axes before "
                         "the last") from None
    if causal:
        mask &= causal_mask(*mask.shape[-2:])
    return mask


def block_mask_to_dense(block_mask, Lq, Lk, *, block_q, block_k, causal=False):
    """Expand a mask of blocks to a mask of tokens.

    Parameters
    ----------
    block_mask : (nQ, nK) or (H, nQ, nK) array_like of bool
        Block (a, b) covers queries a*block_q .. and keys b*block_k .. .
    Lq, Lk : int
        Token counts; the blocks must cover them, what lies beyond is cropped.
    block_q, block_k : int
        Block sizes.
    causal : bool, optional
        Whether lower-right causality applies as well.

    Returns
    -------
    (Lq, Lk) or (H, Lq, Lk) ndarray of bool

    Raises
    ------
    TypeError, ValueError
        For a mask that is not boolean, or blocks that do not cover the tokens.

    Examples
    --------
    >>> from attnkit.mask_functions import block_mask_to_dense
    >>> block_mask_to_dense([[True, False], [False, True]], 3, 3, block_q=2, block_k=2).astype(int)
    array([[1, 1, 0],
           [1, 1, 0],
           [0, 0, 1]])
    """
    blocks = _block_mask(block_mask)
    lq, lk = as_int("Lq", Lq, minimum=0), as_int("Lk", Lk, minimum=0)
    block_q, block_k = as_int("block_q", block_q, minimum=1), as_int("block_k", block_k, minimum=1)
    causal = as_flag("causal", causal)
    if blocks.shape[-2] * block_q < lq or blocks.shape[-1] * block_k < lk:
        raise ValueError(f"block_mask of shape {blocks.shape} with blocks of ({block_q}, {block_k}) covers less "
                         f"than Lq = {lq}, Lk = {lk}")
    row_block, col_block = np.arange(lq) // block_q, np.arange(lk) // block_k
    dense = blocks[..., row_block, :][..., col_block]
    return dense & causal_mask(lq, lk) if causal else dense


def block_mask_to_csr(block_mask):
    """List the allowed key blocks of every query block in compressed rows.

    Parameters
    ----------
    block_mask : (nQ, nK) or (H, nQ, nK) array_like of bool

    Returns
    -------
    (indptr, indices) : tuple of ndarray of int64
        The key blocks of query block a are ``indices[indptr[a]:indptr[a + 1]]``, ascending.  For 3-D input
        a list with one such pair per head.

    Raises
    ------
    TypeError, ValueError
        For a mask that is not boolean, or not 2-D or 3-D.

    Examples
    --------
    >>> from attnkit.mask_functions import block_mask_to_csr
    >>> block_mask_to_csr([[True, False, True], [False, True, False]])
    (array([0, 2, 3]), array([0, 2, 1]))
    """
    blocks = _block_mask(block_mask)
    if blocks.ndim == 3:
        return [block_mask_to_csr(head) for head in blocks]
    rows, cols = np.nonzero(blocks)
    indptr = np.zeros(blocks.shape[0] + 1, np.int64)
    np.cumsum(np.bincount(rows, minlength=blocks.shape[0]), out=indptr[1:])
    return indptr, cols.astype(np.int64, copy=False)


def mask_tile_stats(mask, block_q, block_k):
    """Count the tiles that a blocked kernel has to visit for a mask.

    Parameters
    ----------
    mask : (Lq, Lk) array_like of bool
    block_q, block_k : int
        Tile sizes.

    Returns
    -------
    dict
        tiles (all), visited (with any True), full (all True), density (mean of the mask), wasted (share of
        the visited entries that are False), max_row_tiles (most visited tiles in one row of tiles),
        speedup_bound = tiles / visited, speedup_worst_row = nK / max_row_tiles.

    Raises
    ------
    TypeError, ValueError
        For a mask that is not a 2-D boolean array, or tile sizes below 1.

    Notes
    -----
    An upper bound for any kernel that skips whole tiles.  An all-False mask gives bounds of inf, a mask
    without entries gives 1.

    Examples
    --------
    >>> from attnkit.mask_functions import causal_mask, mask_tile_stats
    >>> stats = mask_tile_stats(causal_mask(128), 32, 32)
    >>> stats["tiles"], stats["visited"], stats["full"], stats["speedup_bound"]
    (16, 10, 6, 1.6)
    """
    mask = as_mask("mask", mask)
    if mask.ndim != 2:
        raise ValueError(f"mask must have shape (Lq, Lk), got {mask.shape}")
    block_q, block_k = as_int("block_q", block_q, minimum=1), as_int("block_k", block_k, minimum=1)
    lq, lk = mask.shape
    row_starts, col_starts = np.arange(0, lq, block_q), np.arange(0, lk, block_k)
    tiles = len(row_starts) * len(col_starts)
    if not tiles:
        return {"tiles": 0, "visited": 0, "full": 0, "density": 0.0, "wasted": 0.0, "max_row_tiles": 0,
                "speedup_bound": 1.0, "speedup_worst_row": 1.0}
    allowed = np.add.reduceat(np.add.reduceat(mask, col_starts, axis=1, dtype=np.int64), row_starts, axis=0)
    heights, widths = np.minimum(block_q, lq - row_starts), np.minimum(block_k, lk - col_starts)
    size = np.outer(heights, widths)
    visited = allowed > 0
    n_visited, max_row = int(visited.sum()), int(visited.sum(axis=1).max())
    n_allowed, n_entries = int(allowed.sum()), int(size[visited].sum())
    return {
        "tiles": tiles,
        "visited": n_visited,
        "full": int((allowed == size).sum()),
        "density": n_allowed / mask.size,
        "wasted": (n_entries - n_allowed) / n_entries if n_visited else 0.0,
        "max_row_tiles": max_row,
        "speedup_bound": tiles / n_visited if n_visited else np.inf,
        "speedup_worst_row": len(col_starts) / max_row if n_visited else np.inf,
    }


def receptive_field(mask, layers):
    """Which inputs can influence which outputs after a stack of equal layers.

    Parameters
    ----------
    mask : (L, L) array_like of bool
        Mask of one layer; row i lists the keys that output i reads.
    layers : int
        Number of layers; 0 gives the identity.

    Returns
    -------
    (L, L) ndarray of bool
        The boolean power mask^layers: [i, j] is True when input j reaches output i in exactly `layers`
        steps.  Residual connections are the diagonal of the mask.

    Raises
    ------
    TypeError, ValueError
        For a mask that is not a square boolean array, or a negative number of layers.

    Notes
    -----
    Repeated squaring with 64 columns per machine word and 8 rows per table look-up: about
    2 log2(layers) L^3 / 512 word operations.

    Examples
    --------
    >>> from attnkit.mask_functions import receptive_field, sliding_window_mask
    >>> receptive_field(sliding_window_mask(4, left=1), 2).astype(int)
    array([[1, 0, 0, 0],
           [1, 1, 0, 0],
           [1, 1, 1, 0],
           [0, 1, 1, 1]])
    """
    mask = _square(mask)
    layers = as_int("layers", layers, minimum=0)
    length = len(mask)
    reach, power = _pack(np.eye(length, dtype=bool)), _pack(mask)
    while layers:
        if layers & 1:
            reach = _packed_product(reach, power, length)
        layers >>= 1
        if layers:
            power = _packed_product(power, power, length)
    return _unpack(reach, length)


def receptive_depth(mask):
    """Fewest layers after which each input can influence each output.

    Parameters
    ----------
    mask : (L, L) array_like of bool
        Mask of one layer; row i lists the keys that output i reads.

    Returns
    -------
    (L, L) ndarray of int64
        [i, j] = number of layers for input j to reach output i; 0 on the diagonal, -1 when it never does.

    Raises
    ------
    TypeError, ValueError
        For a mask that is not a square boolean array.

    Notes
    -----
    Breadth-first search from all outputs at once on rows of bits: every reached pair is expanded once, so
    the work is at most L^3 / 64 word operations whatever the depth.

    Examples
    --------
    >>> from attnkit.mask_functions import receptive_depth, sliding_window_mask
    >>> receptive_depth(sliding_window_mask(4, left=1))
    array([[ 0, -1, -1, -1],
           [ 1,  0, -1, -1],
           [ 2,  1,  0, -1],
           [ 3,  2,  1,  0]])
    """
    mask = _square(mask)
    length = len(mask)
    frontier = _pack(np.eye(length, dtype=bool))
    reached, packed = frontier.copy(), _pack(mask)
    depth = np.full((length, length), -1, np.int64)
    layers = 0
    while pairs := int(np.bitwise_count(frontier).sum()):
        if pairs * 16 > length * (length + 256):
            depth[_unpack(frontier, length)] = layers
            step = _packed_product(frontier, packed, length)
        else:
            rows, cols = _set_bits(frontier)
            depth[rows, cols] = layers
            step = _gathered_product(rows, cols, packed)
        frontier = step & ~reached
        reached |= frontier
        layers += 1
    return depth


def _positions(lq, lk, offset):
    """Checked positions of queries, as a column, and of keys, as a row."""
    lq = as_int("Lq", lq, minimum=0)
    lk = lq if lk is None else as_int("Lk", lk, minimum=0)
    offset = lk - lq if offset is None else as_int("offset", offset)
    return np.arange(offset, offset + lq)[:, None], np.arange(lk)[None, :]


def _reach(name, side):
    """Reach of a window to one side, None for unbounded."""
    if side is None:
        return None
    side = as_int(name, side)
    return side if side >= 0 else None


def _block_mask(block_mask):
    blocks = as_mask("block_mask", block_mask)
    if blocks.ndim not in (2, 3):
        raise ValueError(f"block_mask must have shape (nQ, nK) or (H, nQ, nK), got {blocks.shape}")
    return blocks


def _square(mask):
    mask = as_mask("mask", mask)
    if mask.ndim != 2 or mask.shape[0] != mask.shape[1]:
        raise ValueError(f"mask must have shape (L, L), got {mask.shape}")
    return mask


def _pack(mask):
    """Rows of booleans as rows of 64-bit words, padded with zeros."""
    rows, length = mask.shape
    words = np.zeros((rows, -(-length // 64)), np.uint64)
    packed = np.packbits(mask, axis=1, bitorder="little")
    words.view(np.uint8)[:, : packed.shape[1]] = packed
    return words


def _unpack(words, length):
    return np.unpackbits(words.view(np.uint8), axis=1, count=length, bitorder="little").view(bool)


def _packed_product(a, b, length):
    """Boolean matrix product of packed rows.

    Eight rows of `b` at a time: a table of the OR of each of their 256 subsets, then one look-up per row of
    `a` by the byte that says which of the eight it contains.
    """
    out = np.zeros((a.shape[0], b.shape[1]), np.uint64)
    subset = a.view(np.uint8)
    table = np.zeros((256, b.shape[1]), np.uint64)
    for first in range(0, length, 8):
        size = 1
        for row in b[first:first + 8]:
            np.bitwise_or(table[:size], row, out=table[size:2 * size])
            size *= 2
        out |= table[subset[:, first // 8]]
    return out


def _set_bits(words):
    """Rows and columns of the bits that are set, row by row."""
    rows, places = np.nonzero(words)
    bits = np.unpackbits(words[rows, places].view(np.uint8).reshape(-1, 8), axis=1, bitorder="little")
    word, bit = np.nonzero(bits)
    return rows[word], places[word] * 64 + bit


def _gathered_product(rows, cols, packed):
    """Boolean product of the matrix with ones at (rows, cols), sorted by row, and a packed one.

    Gathers one row of `packed` per pair, which beats the tables of `_packed_product` for few pairs.
    """
    out = np.zeros_like(packed)
    chunk = max(1, (1 << 20) // max(packed.shape[1], 1))    # at most 8 MB of gathered rows at a time
    for first in range(0, len(rows), chunk):
        r, c = rows[first:first + chunk], cols[first:first + chunk]
        starts = np.flatnonzero(np.r_[True, r[1:] != r[:-1]])
        out[r[starts]] |= np.bitwise_or.reduceat(packed[c], starts, axis=0)
    return out
