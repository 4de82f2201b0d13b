"""Attention over packed sequences, paged key-value caches and key shards."""

import numpy as np

from .. import _core
from .._engine import Problem, as_array, as_flag, as_float64, as_floats, check_out, standard_arithmetic


_PAGE_UNIT = 16  # the engine packs keys in panels of 16 floats or 8 doubles, which must not straddle pages


def _integers(name, x):
    x = as_array(name, x)
    if x.size == 0:
        x = x.astype(np.int64)
    if x.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold integers, got dtype {x.dtype}")
    return x.astype(np.int64, copy=False)


def _cumulative(name, cu, length):
    cu = _integers(name, cu)
    if cu.ndim != 1 or len(cu) < 1:
        raise ValueError(f"{name} must be 1-D with at least one entry, got shape {cu.shape}")
    if cu[0] != 0 or cu[-1] != length or (np.diff(cu) < 0).any():
        raise ValueError(f"{name} must ascend from 0 to the length {length} of axis -2, got {cu.tolist()}")
    return cu.tolist()


def varlen_attention(q, k, v, cu_seqlens_q, cu_seqlens_k, *, causal=False, return_lse=False, scale=None, window=None, softcap=None,
                     alibi_slopes=None, sink_logits=None, out=None):
    """Compute softmax attention of packed sequences, each on its own.

    Parameters
    ----------
    q : array_like, shape (..., total_q, d)
        Queries of all sequences one after the other, as in `softmax_attention`.
    k : array_like, shape (..., total_k, d)
        Keys likewise.
    v : array_like, shape (..., total_k, dv)
        Values likewise.
    cu_seqlens_q, cu_seqlens_k : array_like of int, shape (n_sequences + 1,)
        Sequence b owns rows cu_q[b]:cu_q[b+1] and keys cu_k[b]:cu_k[b+1].
    causal : bool or {"lower_right", "upper_left"}
        Allow keys at or before the query, aligned per sequence.
    return_lse : bool
        Also return the log-sum-exp.
    scale : float, optional
        Factor of the dot products; None is 1/sqrt(d).
    window : (int or None, int or None), optional
        (left, right) reach around the query, per sequence.
    softcap : float, optional
        c * tanh(s / c) of the scaled products.
    alibi_slopes : array_like, optional
        One slope per head.
    sink_logits : array_like, optional
        One virtual key per head.
    out : ndarray, optional
        Where to put the output: exact shape and dtype. It may overlap the inputs.

    Returns
    -------
    out : ndarray, shape (..., total_q, dv)
        In NumPy's promotion of the input dtypes.
    lse : ndarray, shape (..., total_q)
        If asked for.

    Raises
    ------
    TypeError, ValueError
        As `softmax_attention`; cumulative lengths that do not ascend from 0 to the axis length.

    See Also
    --------
    attnkit.masks.documents : the same as a mask plan, for sequences that keep other options of their own.

    Notes
    -----
    Equals attention under a block-diagonal mask; each sequence has the bytes of its own call.

    Examples
    --------
    >>> import numpy as np, attnkit
    >>> x = np.arange(6.0).reshape(3, 2)
    >>> attnkit.varlen_attention(x, x, x, [0, 1, 3], [0, 1, 3], scale=0.0)
    array([[0., 1.],
           [3., 4.],
           [3., 4.]])
    """
    if v is None:
        raise TypeError("v must be an array, got None")
    whole = Problem(q, k, v, scale, False, None, None, None, None, None, None)
    q, k, v = whole.inputs
    if v.ndim < 2 or v.shape[-2] != whole.lk:
        raise ValueError(f"k and v must have the same length (axis -2): k {k.shape}, v {v.shape}")
    rows, keys = _cumulative("cu_seqlens_q", cu_seqlens_q, whole.lq), _cumulative("cu_seqlens_k", cu_seqlens_k, whole.lk)
    if len(rows) != len(keys):
        raise ValueError(f"cu_seqlens_q and cu_seqlens_k need one length, got {len(rows)} and {len(keys)}")
    return_lse = as_flag("return_lse", return_lse)
    batch = whole.leading()
    shape = (*batch, whole.lq, v.shape[-1])
    if out is not None:
        check_out(out, shape, whole.dtype, ())
    # A later sequence may run out of memory when an earlier one is there already, so `out` is written at the end.
    found_out = np.empty(shape, whole.dtype)
    coded = found_out if found_out.dtype.char in "efd" else found_out.view(np.uint16)
    lse = np.empty((*batch, whole.lq), whole.real()) if return_lse else None
    for r0, r1, k0, k1 in zip(rows, rows[1:], keys, keys[1:]):
        part = Problem(q[..., r0:r1, :], k[..., k0:k1, :], v[..., k0:k1, :], scale, causal, None, None, window, alibi_slopes, softcap, None)
        found = part.attend(coded[..., r0:r1, :], ("lse",) if return_lse else (), sink=part.sinks(sink_logits))
        if return_lse:
            lse[..., r0:r1] = found[1]
    out = _delivered(found_out, out)
    return (out, lse) if return_lse else out


def _delivered(found, out):
    """The result, or `out` with the result in it."""
    if out is None:
        return found
    np.copyto(out, found)
    return out


def paged_attention(q, k_pages, v_pages, page_table, seq_lens, *, causal=True, return_lse=False, scale=None, window=None, softcap=None,
                    alibi_slopes=None, sink_logits=None, out=None):
    """Compute softmax attention over a paged key-value cache.

    Parameters
    ----------
    q : array_like, shape (B, H, Lq, d)
        Queries: the last Lq positions of each sequence.
    k_pages : array_like, shape (n_pages, Hkv, page, d)
        Pages of keys; Hkv divides H.
    v_pages : array_like, shape (n_pages, Hkv, page, dv)
        Pages of values.
    page_table : array_like of int, shape (B, max_pages)
        Pages of each sequence in order.
    seq_lens : array_like of int, shape (B,)
        Keys of each sequence; it uses its first ceil(seq_lens / page) table entries.
    causal : bool or {"lower_right", "upper_left"}
        Allow keys at or before the query.
    return_lse : bool
        Also return the log-sum-exp.
    scale : float, optional
        Factor of the dot products; None is 1/sqrt(d).
    window : (int or None, int or None), optional
        (left, right) reach around the query.
    softcap : float, optional
        c * tanh(s / c) of the scaled products.
    alibi_slopes : array_like, optional
        One slope per head.
    sink_logits : array_like, optional
        One virtual key per head.
    out : ndarray, optional
        Where to put the output: exact shape and dtype. It may overlap the inputs.

    Returns
    -------
    out : ndarray, shape (B, H, Lq, dv)
        In NumPy's promotion of the input dtypes.
    lse : ndarray, shape (B, H, Lq)
        If asked for.

    Raises
    ------
    TypeError, ValueError
        As `softmax_attention`; a table that names no page, a length beyond the table.

    See Also
    --------
    softmax_attention, varlen_attention

    Notes
    -----
    Has the bytes of `softmax_attention` over the contiguous sequence. Pages of a multiple of 16 keys are read in place; others are gathered
    first, one sequence at a time.

    Examples
    --------
    >>> import numpy as np, attnkit
    >>> pages = np.arange(8.0).reshape(4, 1, 2, 1)
    >>> attnkit.paged_attention(np.zeros((1, 1, 1, 1)), pages, pages, [[2, 0]], [3]).ravel()
    array([3.])
    """
    q, k_pages, v_pages = as_floats("q", q), as_floats("k_pages", k_pages), as_floats("v_pages", v_pages)
    for name, x in (("q", q), ("k_pages", k_pages), ("v_pages", v_pages)):
        if x.ndim != 4:
            raise ValueError(f"{name} needs 4 axes, got shape {x.shape}")
    if k_pages.shape[:3] != v_pages.shape[:3]:
        raise ValueError(f"k_pages {k_pages.shape} and v_pages {v_pages.shape} need the same first three axes")
    table, lengths = _integers("page_table", page_table), _integers("seq_lens", seq_lens)
    # Numbers that the engine follows blindly: checked on a copy, which no other thread can change meanwhile.
    table = np.array(table, order="C")
    n_pages, _, page, _ = k_pages.shape
    batch, heads, lq, _ = q.shape
    if table.ndim != 2 or table.shape[0] != batch:
        raise ValueError(f"page_table needs shape ({batch}, max_pages), got {table.shape}")
    if lengths.shape != (batch,):
        raise ValueError(f"seq_lens needs shape ({batch},), got {lengths.shape}")
    for b, n in enumerate(lengths.tolist()):
        if n < 0 or n > table.shape[1] * page:
            raise ValueError(f"seq_lens[{b}] = {n} does not fit {table.shape[1]} pages of {page} keys")
        used = table[b, : -(-n // page) if page else 0]
        if ((used < 0) | (used >= n_pages)).any():
            raise ValueError(f"page_table[{b}] names a page outside 0..{n_pages - 1}")
    return_lse = as_flag("return_lse", return_lse)
    whole = Problem(q, k_pages, v_pages, scale, causal, None, None, window, alibi_slopes, softcap, None)
    shape = (batch, heads, lq, v_pages.shape[-1])
    if out is not None:
        check_out(out, shape, whole.dtype, ())
    # A later sequence may run out of memory when an earlier one is there already, so `out` is written at the end.
    found, lse = np.empty(shape, whole.dtype), np.empty(shape[:-1], whole.real())
    coded = found if found.dtype.char in "efd" else found.view(np.uint16)
    for b, n in enumerate(lengths.tolist()):
        used = table[b, : -(-n // page) if page else 0]
        in_place = n > 0 and page % _PAGE_UNIT == 0
        view = _first_page if in_place else _gather
        part = Problem(q[b], view(k_pages, used, n), view(v_pages, used, n), scale, causal, None, None, window, alibi_slopes, softcap, None)
        pages = (used, page, k_pages.strides[0], v_pages.strides[0]) if in_place else None
        _, lse[b] = part.attend(coded[b], ("lse",), sink=part.sinks(sink_logits), pages=pages)
    out = _delivered(found, out)
    return (out, lse) if return_lse else out


def _first_page(pages, used, n):
    """A view (heads, n, features) that starts at page 0; the engine finds the rows of other pages by their number."""
    _, heads, _, features = pages.shape
    return np.lib.stride_tricks.as_strided(pages, (heads, n, features), pages.strides[1:])


def _gather(pages, used, n):
    """The first n positions of the pages in order: (heads, n, features)."""
    _, heads, page, features = pages.shape
    return np.swapaxes(pages[used], 0, 1).reshape(heads, len(used) * page, features)[:, :n]


class AttentionState:
    """Raw attention state over a range of keys: mergeable without rounding differences.

    Made by `attention_state`; merged by `merge_states`.

    Attributes
    ----------
    m : ndarray, shape (..., Lq)
        Row maximum of the logits, in units of ln 16.
    l : ndarray, shape (..., Lq)
        Sum of 16^(s - m).
    acc : ndarray, shape (..., Lq, dv)
        Sum of 16^(s - m) v.

    See Also
    --------
    attention_state, merge_states

    Examples
    --------
    >>> import numpy as np, attnkit
    >>> attnkit.attention_state(np.ones((2, 4)), np.ones((3, 4)), np.ones((3, 5)))
    AttentionState(rows (2,), dv 5, float64)
    """

    __slots__ = ("_dtype", "acc", "l", "m")

    def __init__(self, m, l, acc, dtype=None):  # noqa: E741 - the field's letter
        self.m, self.l, self.acc = m, l, acc
        self._dtype = m.dtype if dtype is None else dtype

    def __repr__(self):
        return f"AttentionState(rows {self.m.shape}, dv {self.acc.shape[-1]}, {self.m.dtype})"

    def finish(self, *, sink_logits=None):
        """Return (out, lse).

        Parameters
        ----------
        sink_logits : array_like, optional
            Virtual key: (H,) or broadcasting to (..., Lq).

        Returns
        -------
        out : ndarray, shape (..., Lq, dv)
            In the dtype of the inputs.
        lse : ndarray, shape (..., Lq)
            In the dtype of the state.
        """
        sink = None
        if sink_logits is not None:
            sink = as_float64("sink_logits", sink_logits)
            if sink.ndim == 1 and self.m.ndim > 1 and sink.shape[0] == self.m.shape[-2]:
                sink = sink[:, None]
            try:
                sink = np.ascontiguousarray(np.broadcast_to(sink, self.m.shape))
            except ValueError:
                raise ValueError(f"sink_logits of shape {sink.shape} does not broadcast to the rows {self.m.shape}") from None
        m, l, acc = self.m.copy(), self.l.copy(), self.acc.copy()  # noqa: E741
        lse = np.empty(m.shape)
        _core.finish_states(m, l, acc, sink, lse)
        with standard_arithmetic():
            return acc.astype(self._dtype, copy=False), lse.astype(m.dtype, copy=False)


def attention_state(q, k, v, *, scale=None, causal=False, mask=None, bias=None, window=None, alibi_slopes=None, softcap=None, q_offset=None):
    """Compute the raw state of softmax attention over a range of keys.

    Parameters
    ----------
    q : array_like, shape (..., Lq, d)
        Queries, as in `softmax_attention`; all options mean the same there.
    k : array_like, shape (..., Lk, d)
        Keys of the range. For keys k0 .. k0+Lk-1 of a longer sequence pass `q_offset` less k0.
    v : array_like, shape (..., Lk, dv)
        Values of the range.
    scale : float, optional
        Factor of the dot products; None is 1/sqrt(d).
    causal : bool or {"lower_right", "upper_left"}
        Allow keys at or before the query.
    mask : array_like of bool or plan of `attnkit.masks`, optional
        True = may attend; over this range of keys.
    bias : array_like, optional
        Added to the logits; over this range of keys.
    window : (int or None, int or None), optional
        (left, right) reach around the query.
    alibi_slopes : array_like, optional
        Subtracts slope * distance.
    softcap : float, optional
        c * tanh(s / c) of the scaled products.
    q_offset : int, optional
        Position of query 0 relative to the first key of the range.

    Returns
    -------
    AttentionState

    Raises
    ------
    TypeError, ValueError
        As `softmax_attention`.

    See Also
    --------
    merge_states : one call's bytes from aligned ranges.
    merge_partials : the same for normalised outputs, within a bound.

    Notes
    -----
    Keys are cut in chunks of 4096 whose states merge along the binary tree of the chunk number. A range of 2^t chunks that starts at a
    multiple of 2^t chunks is a subtree, so merging the states of such ranges gives the bytes of one call over all keys.

    Examples
    --------
    >>> import numpy as np, attnkit
    >>> rng = np.random.default_rng(0)
    >>> q, k, v = rng.standard_normal((3, 8192, 16), dtype=np.float32)
    >>> halves = [attnkit.attention_state(q[:4], k[i : i + 4096], v[i : i + 4096]) for i in (0, 4096)]
    >>> out, lse = attnkit.merge_states(halves).finish()
    >>> out.tobytes() == attnkit.softmax_attention(q[:4], k, v).tobytes()
    True
    """
    if v is None:
        raise TypeError("v must be an array, got None")
    problem = Problem(q, k, v, scale, causal, mask, bias, window, alibi_slopes, softcap, q_offset)
    _, m, l, acc = problem.attend(False, ("state_m", "state_l", "state_acc"))  # noqa: E741
    return AttentionState(m, l, acc, problem.dtype)


def merge_states(states):
    """Merge raw states of consecutive key ranges, in the order of their keys.

    Parameters
    ----------
    states : sequence of AttentionState
        At least one; equal shapes and dtypes. They are not changed.

    Returns
    -------
    AttentionState

    Raises
    ------
    TypeError, ValueError
        For anything else.

    See Also
    --------
    attention_state

    Notes
    -----
    Neighbours merge pairwise, as a binary counter carries: the tree that a single call uses for ranges of equal power-of-two size.

    Examples
    --------
    >>> import numpy as np, attnkit
    >>> x = np.ones((2, 4))
    >>> one = attnkit.attention_state(x, x, x)
    >>> attnkit.merge_states([one, one]).finish()[1].round(4)
    array([3.3863, 3.3863])
    """
    if not hasattr(states, "__iter__"):
        raise TypeError(f"states must be a sequence of AttentionState, got {type(states).__name__}")
    states = list(states)
    if not states:
        raise ValueError("states is empty: at least one is needed")
    first = states[0]
    for state in states:
        if not isinstance(state, AttentionState):
            raise TypeError(f"states must hold AttentionState, got {type(state).__name__}")
        if (state.m.shape, state.acc.shape, state.m.dtype, state._dtype) != (first.m.shape, first.acc.shape, first.m.dtype, first._dtype):
            raise ValueError(f"states must have equal shapes and dtypes, got {first!r} and {state!r}")
    stack = []
    for number, state in enumerate(states, 1):
        stack.append([state.m.copy(), state.l.copy(), state.acc.copy()])
        while number % 2 == 0:
            _fold(stack)
            number //= 2
    while len(stack) > 1:
        _fold(stack)
    return AttentionState(*stack[0], first._dtype)


def _fold(stack):
    high = stack.pop()
    _core.merge_states(*stack[-1], *high)
