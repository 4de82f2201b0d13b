"""The kinds of mask plan: what each knows of its shapes, and how it is lowered to the nodes of the C core.

The functions that make plans, with their checks, are in `attnkit.masks`. Adding a pattern takes a class here (`_nodes`
and `__repr__`), a function there, and a row in csrc/python/plan_py.c and csrc/attend/plan.c.
"""

import abc
import operator

import numpy as np

from attnkit import _core
from attnkit._arguments import as_int

MAX_EXTENT = 1 << 62
_MAX_NODES = 64
_STATE_CHARACTERS = np.array([".", "#", "+"])  # empty, full, partial: the codes of the C core


class MaskPlan(abc.ABC):
    """A set of allowed (query, key) pairs; made by the functions of `attnkit.masks`.

    Plans are immutable, hashable, picklable and compare by what they say (the order of the operands of ``&`` and
    ``|`` does not matter). They do not know Lq and Lk until they are used; documents and dense masks do, and so does
    a plan bound by `at`. The extents are then checked wherever the plan goes.

    Notes
    -----
    ``a & b`` allows what both allow, ``a | b`` what either allows, ``~a`` what `a` forbids. An expression may hold up
    to 64 patterns and operators.

    Examples
    --------
    >>> from attnkit import masks
    >>> (masks.causal() & ~masks.prefix(2)).to_dense(3).astype(int)
    array([[0, 0, 0],
           [0, 0, 0],
           [0, 0, 1]])
    """

    __slots__ = ("_fields",)
    __array_ufunc__ = None  # lets `array & plan` reach __rand__

    def __init__(self, *fields):
        object.__setattr__(self, "_fields", fields)

    def __setattr__(self, name, value):
        raise AttributeError("mask plans are immutable")

    def __reduce__(self):
        return type(self), self._fields

    def __eq__(self, other):
        if not isinstance(other, MaskPlan):
            return NotImplemented
        return type(self) is type(other) and self._same(other)

    def __hash__(self):
        return hash((type(self).__name__, *(f.shape if isinstance(f, np.ndarray) else f for f in self._fields)))

    def _same(self, other):
        return all(
            np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b
            for a, b in zip(self._fields, other._fields, strict=True)
        )

    def __bool__(self):
        raise TypeError("a mask plan has no truth value; combine plans with &, | and ~")

    # What a kind of plan defines: its postfix nodes, and what it knows of the shapes it fits.

    @abc.abstractmethod
    def _nodes(self, Lq, Lk, batch_shape, offset):
        """Postfix nodes of `lower` for these extents."""

    def _height(self):
        """Results that must be held at once while the postfix nodes are evaluated."""
        return 1

    def _extents(self):
        """(Lq, Lk), None where the plan fits any."""
        return None, None

    def _batch_shape(self):
        return ()

    # Combination

    def __and__(self, other):
        return _combine(And, self, other)

    def __rand__(self, other):
        return _combine(And, other, self)

    def __or__(self, other):
        return _combine(Or, self, other)

    def __ror__(self, other):
        return _combine(Or, other, self)

    def __invert__(self):
        return Not(self)

    # Use

    def at(self, Lq, Lk=None):
        """Bind the plan to its extents.

        Parameters
        ----------
        Lq : int
            Number of queries.
        Lk : int, optional
            Number of keys; None means Lq.

        Returns
        -------
        MaskPlan
            The same set of pairs, which now also converts with ``np.asarray`` and prints a picture.

        Raises
        ------
        ValueError
            If the plan knows its extents and they differ.

        Examples
        --------
        >>> import numpy as np
        >>> from attnkit import masks
        >>> np.asarray(masks.causal().at(2, 3)).astype(int)
        array([[1, 1, 0],
               [1, 1, 1]])
        >>> print(masks.causal().at(3))
        causal().at(3, 3)
        #..
        ##.
        ###
        """
        Lq = _extent(Lq, "Lq")
        Lk = Lq if Lk is None else _extent(Lk, "Lk")
        _check_extents(self, Lq, Lk)
        return self if isinstance(self, Bound) else Bound(self, Lq, Lk)

    def _resolve(self, Lq, Lk):
        own_q, own_k = self._extents()
        if Lq is None:
            if own_q is None or (Lk is None and own_k is None):
                raise TypeError(f"{self!r} does not know its extents: give Lq and Lk, or bind it with .at(Lq, Lk)")
            Lq = own_q
        Lq = _extent(Lq, "Lq")
        Lk = _extent(Lk, "Lk") if Lk is not None else own_k if own_k is not None else Lq
        _check_extents(self, Lq, Lk)
        return Lq, Lk

    def to_dense(self, Lq=None, Lk=None):
        """The plan as a boolean array.

        Parameters
        ----------
        Lq, Lk : int, optional
            Numbers of queries and keys. A plan that knows them needs none; Lk alone defaults to Lq.

        Returns
        -------
        ndarray of bool, shape (..., Lq, Lk)
            True = allowed. The leading axes are those of per-head block and dense masks, usually none.

        Raises
        ------
        ValueError
            If the plan knows its extents and they differ.
        TypeError
            If the extents are neither given nor known.

        Notes
        -----
        Costs Lq * Lk bytes for each head; attention itself never needs it.

        Examples
        --------
        >>> from attnkit import masks
        >>> masks.window(1, right=1).to_dense(3).astype(int)
        array([[1, 1, 0],
               [1, 1, 1],
               [0, 1, 1]])
        """
        Lq, Lk = self._resolve(Lq, Lk)
        batch = self._batch_shape()
        nodes = lower(self, Lq, Lk, batch)
        if not batch:
            return _core.plan_dense(nodes, Lq, Lk, ())
        result = np.empty((*batch, Lq, Lk), bool)
        for index in np.ndindex(*batch):
            result[index] = _core.plan_dense(nodes, Lq, Lk, index)
        return result

    def __array__(self, dtype=None, copy=None):
        if copy is False:
            raise ValueError("a mask plan holds no array: converting it always makes a new one")
        array = self.to_dense()
        return array if dtype is None else array.astype(dtype, copy=False)

    def tile_stats(self, Lq=None, Lk=None, *, block_q=64, block_k=256):
        """How much of the Lq x Lk square a blocked kernel has to visit.

        Parameters
        ----------
        Lq, Lk : int, optional
            Numbers of queries and keys, as for `to_dense`.
        block_q, block_k : int
            Size of a tile in queries and keys.

        Returns
        -------
        dict
            ``tiles`` (all), ``visited`` (with any allowed pair), ``full`` (with allowed pairs only), ``partial``
            (visited - full), ``density`` (share of allowed pairs), ``wasted`` (share of the pairs in visited tiles that
            are not allowed), ``max_row_tiles`` (visited tiles in the fullest row of tiles), ``speedup_bound`` = tiles /
            visited and ``speedup_worst_row`` = tiles in a row / max_row_tiles (infinite when nothing is visited, 1 when
            there are no tiles). Per-head plans count all heads together.

        Raises
        ------
        ValueError
            If the extents differ from those the plan knows, a block size is below 1, or Lq * Lk >= 2**63.

        Notes
        -----
        The same definitions as `attnkit.mask_tile_stats` for a boolean array, but counted on the patterns: empty and
        full stretches cost a bisection, so a window over 100,000 x 100,000 takes milliseconds.

        Examples
        --------
        >>> from attnkit import masks
        >>> stats = masks.causal().tile_stats(1024, block_q=256)
        >>> stats["tiles"], stats["visited"], stats["full"], stats["partial"]
        (16, 10, 6, 4)
        >>> stats["speedup_bound"]
        1.6
        """
        Lq, Lk = self._resolve(Lq, Lk)
        block_q, block_k = as_int("block_q", block_q, minimum=1), as_int("block_k", block_k, minimum=1)
        batch = self._batch_shape()
        nodes = lower(self, Lq, Lk, batch)
        tiles = visited = full_tiles = pairs = visited_pairs = max_row_tiles = heads = 0
        for index in np.ndindex(*batch):
            counts = _core.plan_count(nodes, Lq, Lk, index, block_q, block_k)
            tiles, visited, full_tiles = tiles + counts[0], visited + counts[1], full_tiles + counts[2]
            pairs, visited_pairs = pairs + counts[3], visited_pairs + counts[4]
            max_row_tiles, heads = max(max_row_tiles, counts[5]), heads + 1
        idle = float("inf") if tiles else 1.0
        return {
            "tiles": tiles,
            "visited": visited,
            "full": full_tiles,
            "partial": visited - full_tiles,
            "density": pairs / max(heads * Lq * Lk, 1),
            "wasted": 1 - pairs / visited_pairs if visited_pairs else 0.0,
            "max_row_tiles": max_row_tiles,
            "speedup_bound": tiles / visited if visited else idle,
            "speedup_worst_row": -(-Lk // block_k) / max_row_tiles if max_row_tiles else idle,
        }

    @property
    def nbytes(self):
        """Bytes of the numbers and arrays that describe the plan.

        Examples
        --------
        >>> from attnkit import masks
        >>> (masks.causal() & masks.window(256)).nbytes
        48
        """
        return sum(_field_bytes(f) for f in self._fields)

    def picture(self, Lq=None, Lk=None, *, width=32, index=None):
        """A small text picture: one character per tile, '#' full, '+' partial, '.' empty.

        Parameters
        ----------
        Lq, Lk : int, optional
            Numbers of queries and keys, as for `to_dense`.
        width : int
            Most characters in a row or column; tiles are squares just large enough to fit.
        index : tuple of int, optional
            Which head of a per-head plan; None is the first one.

        Returns
        -------
        str
            Rows of queries, top to bottom, separated by newlines; empty when Lq or Lk is 0.

        Notes
        -----
        Every character is exact, at any extent: a tile is searched only until an allowed and a forbidden pair are
        known.

        Examples
        --------
        >>> from attnkit import masks
        >>> print(masks.window(100, right=100).picture(1024, width=8))
        ++......
        +++.....
        .+++....
        ..+++...
        ...+++..
        ....+++.
        .....+++
        ......++
        """
        Lq, Lk = self._resolve(Lq, Lk)
        width = as_int("width", width, minimum=1)
        batch = self._batch_shape()
        index = (0,) * len(batch) if index is None else tuple(operator.index(i) for i in index)
        if len(index) != len(batch):
            raise ValueError(f"index= has {len(index)} entries, the plan has the leading axes {batch}")
        if not all(0 <= i < n for i, n in zip(index, batch, strict=True)):
            raise ValueError(f"index={index} is out of range for the leading axes {batch}")
        block = max(1, -(-max(Lq, Lk) // width))
        states = _core.plan_states(lower(self, Lq, Lk, batch), Lq, Lk, index, block, block)
        return "\n".join("".join(row) for row in _STATE_CHARACTERS[states]) if states.size else ""

    @abc.abstractmethod
    def __repr__(self):
        """The expression that makes the plan."""

    def _repr_html_(self):
        import html  # needed in notebooks only

        return f"<pre>{html.escape(str(self))}</pre>"


# ---- kinds of plan ---------------------------------------------------------------------------------------------------


class All(MaskPlan):
    __slots__ = ()

    def _nodes(self, Lq, Lk, batch_shape, offset):
        return [("all",)]

    def __repr__(self):
        return "full()"


class Causal(MaskPlan):
    __slots__ = ()  # fields: offset

    def _nodes(self, Lq, Lk, batch_shape, offset):
        return [("causal", _offset_at(self._fields[0], offset))]

    def __repr__(self):
        (offset,) = self._fields
        return "causal()" if offset is None else f"causal(offset={offset!r})"


class Window(MaskPlan):
    __slots__ = ()  # fields: left, right, sinks, dilation, offset

    def _nodes(self, Lq, Lk, batch_shape, offset):
        left, right, sinks, dilation, own = self._fields
        return [("window", _reach(left), _reach(right), min(sinks, MAX_EXTENT), dilation, _offset_at(own, offset))]

    def __repr__(self):
        left, right, sinks, dilation, offset = self._fields
        words = [f"left={left}"]
        words += [f"right={right}"] if right != 0 else []
        words += [f"sinks={sinks}"] if sinks else []
        words += [f"dilation={dilation}"] if dilation != 1 else []
        words += [f"offset={offset!r}"] if offset is not None else []
        return f"window({', '.join(words)})"


class Prefix(MaskPlan):
    __slots__ = ()  # fields: n

    def _nodes(self, Lq, Lk, batch_shape, offset):
        return [("prefix", min(self._fields[0], MAX_EXTENT))]

    def __repr__(self):
        return f"prefix({self._fields[0]})"


class Documents(MaskPlan):
    __slots__ = ()  # fields: seg_q, seg_k (the same object when keys are the queries)

    def __init__(self, seg_q, seg_k):
        for array in (seg_q, seg_k):
            array.flags.writeable = False
        super().__init__(seg_q, seg_k)

    def _nodes(self, Lq, Lk, batch_shape, offset):
        return [("document", *self._fields)]

    def _extents(self):
        return self._fields[0].size, self._fields[1].size

    @property
    def nbytes(self):
        seg_q, seg_k = self._fields
        return seg_q.nbytes + (0 if seg_k is seg_q else seg_k.nbytes)

    def __repr__(self):
        seg_q, seg_k = self._fields
        words = [_brief(seg_q)] if seg_k is seg_q else [_brief(seg_q), _brief(seg_k)]
        return f"documents({', '.join(words)})"


class Blocks(MaskPlan):
    __slots__ = ()  # fields: block_mask, block_q, block_k

    def __init__(self, block_mask, block_q, block_k):
        block_mask.flags.writeable = False
        super().__init__(block_mask, block_q, block_k)

    def _nodes(self, Lq, Lk, batch_shape, offset):
        array, block_q, block_k = self._fields
        need = (-(-Lq // block_q), -(-Lk // block_k))
        if array.shape[-2:] != need:
            raise ValueError(
                f"mask= has a block mask of shape {array.shape}, but (Lq, Lk) = {(Lq, Lk)} in blocks of "
                f"{block_q} x {block_k} needs (..., {need[0]}, {need[1]})"
            )
        return [("blocks", _broadcast(array, (*batch_shape, *need), array.shape), block_q, block_k)]

    def _batch_shape(self):
        return self._fields[0].shape[:-2]

    def __repr__(self):
        array, block_q, block_k = self._fields
        return f"blocks({_brief(array)}, block_q={block_q}, block_k={block_k})"


class Dense(MaskPlan):
    __slots__ = ()  # fields: array without its broadcast axes, its full shape (at least 2-D)

    def _nodes(self, Lq, Lk, batch_shape, offset):
        array, shape = self._fields
        return [("dense", _broadcast(array, (*batch_shape, Lq, Lk), shape))]

    def _extents(self):
        return tuple(None if n == 1 else n for n in self._fields[1][-2:])

    def _batch_shape(self):
        return self._fields[1][:-2]

    def to_dense(self, Lq=None, Lk=None):
        array, shape = self._fields
        if Lq is None and Lk is None:
            return np.broadcast_to(array, shape).copy()
        Lq, Lk = self._resolve(Lq, Lk)
        return _broadcast(array, (*shape[:-2], Lq, Lk), shape).copy()

    to_dense.__doc__ = MaskPlan.to_dense.__doc__

    def __repr__(self):
        array, shape = self._fields
        return f"dense({_brief(np.broadcast_to(array, shape))})"


class Not(MaskPlan):
    __slots__ = ()  # fields: plan

    def _nodes(self, Lq, Lk, batch_shape, offset):
        return [*self._fields[0]._nodes(Lq, Lk, batch_shape, offset), ("not",)]

    def _height(self):
        return self._fields[0]._height()

    def _extents(self):
        return self._fields[0]._extents()

    def _batch_shape(self):
        return self._fields[0]._batch_shape()

    def __invert__(self):
        return self._fields[0]

    def __repr__(self):
        (plan,) = self._fields
        return "none()" if isinstance(plan, All) else f"~{_bracketed(plan, Several)}"


class Several(MaskPlan):
    """Operands joined by one operator, kept flat; equality and hash do not look at their order."""

    __slots__ = ()  # fields: the operands
    _word = _sign = ""

    def _same(self, other):
        return set(self._fields) == set(other._fields)

    def __hash__(self):
        return hash((self._word, frozenset(self._fields)))

    def _by_height(self):
        # The tallest operand first: then n operands of height 1 need two results at once, not n.
        return sorted(self._fields, key=lambda plan: -plan._height())

    def _nodes(self, Lq, Lk, batch_shape, offset):
        nodes = []
        for i, plan in enumerate(self._by_height()):
            nodes += plan._nodes(Lq, Lk, batch_shape, offset)
            nodes += [(self._word,)] if i else []
        return nodes

    def _height(self):
        tallest, next_tallest = sorted((plan._height() for plan in self._fields), reverse=True)[:2]
        return max(tallest, 1 + next_tallest)

    def _extents(self):
        pairs = [plan._extents() for plan in self._fields]
        return tuple(next((pair[axis] for pair in pairs if pair[axis] is not None), None) for axis in (0, 1))

    def _batch_shape(self):
        return np.broadcast_shapes(*(plan._batch_shape() for plan in self._fields))

    def __repr__(self):
        return f" {self._sign} ".join(_bracketed(plan, self._looser) for plan in self._fields)


class Or(Several):
    __slots__ = ()
    _word, _sign, _looser = "or", "|", ()


class And(Several):
    __slots__ = ()
    _word, _sign, _looser = "and", "&", Or


class Bound(MaskPlan):
    __slots__ = ()  # fields: plan, Lq, Lk

    def _nodes(self, Lq, Lk, batch_shape, offset):
        return self._fields[0]._nodes(Lq, Lk, batch_shape, offset)

    def _height(self):
        return self._fields[0]._height()

    def _extents(self):
        return self._fields[1:]

    def _batch_shape(self):
        return self._fields[0]._batch_shape()

    def __repr__(self):
        plan, Lq, Lk = self._fields
        return f"{_bracketed(plan, (Several, Not))}.at({Lq}, {Lk})"

    def __str__(self):
        head = "" if 0 in self._batch_shape() else self.picture()
        return f"{self!r}\n{head}".rstrip("\n")


# ---- shapes and arrays -----------------------------------------------------------------------------------------------


def _extent(value, name):
    value = as_int(name, value, minimum=0)
    if value > MAX_EXTENT:
        raise ValueError(f"{name} must be at most 2**62, got {value}")
    return value


def _offset_at(own, offset):
    """Position of query 0: the pattern's own, or the call's."""
    return offset if own is None else 0 if own == "upper_left" else own


def _reach(steps):
    # No key is further away than this, so the core may take it for unbounded.
    return -1 if steps is None or steps > MAX_EXTENT else steps


def plain_array(values, name):
    """`values` as an ndarray, without a copy where NumPy can view them."""
    if isinstance(values, np.ma.MaskedArray):
        raise TypeError(f"{name}= must be a plain array, got a MaskedArray")
    if not hasattr(values, "__array__") and hasattr(values, "__dlpack__"):
        return np.from_dlpack(values)
    return np.asarray(values)


def boolean(values, name):
    """A read-only boolean view of `values` (a copy only of integers wider than a byte)."""
    array = plain_array(values, name)
    if array.dtype.kind not in "biu":
        raise TypeError(f"{name}= must be boolean or 0/1 integers, got {array.dtype}; additive values go into bias=")
    if array.dtype.kind != "b":
        shape, array = array.shape, _distinct(array)
        if array.size and (array.min() < 0 or array.max() > 1):
            raise ValueError(f"{name}= holds integers other than 0 and 1 (between {array.min()} and {array.max()})")
        array = np.broadcast_to(array.view(bool) if array.itemsize == 1 else array != 0, shape)
    array = array.view()
    array.flags.writeable = False
    return array


def _distinct(array):
    """The array without the repeats of its zero-stride axes, which stay as axes of length 1."""
    repeats = (step == 0 and n > 1 for step, n in zip(array.strides, array.shape, strict=True))
    return array[tuple(slice(0, 1) if repeated else slice(None) for repeated in repeats)]


def _broadcast(array, target, shape):
    """`array` broadcast to `target`; `shape` is what the user gave."""
    try:
        return np.broadcast_to(array, target)
    except ValueError:
        raise ValueError(f"mask= has the shape {tuple(shape)}, which does not broadcast to {tuple(target)}") from None


def _check_extents(plan, Lq, Lk):
    own_q, own_k = plan._extents()
    if own_q not in (None, Lq) or own_k not in (None, Lk):
        fits = ("any" if own_q is None else own_q, "any" if own_k is None else own_k)
        raise ValueError(f"mask= {plan!r} fits (Lq, Lk) = ({fits[0]}, {fits[1]}), but the call has {(Lq, Lk)}")


def _brief(array):
    if array.size <= 16:
        return str(array.astype(int).tolist())
    return f"<{array.dtype} {array.shape}>"


def _field_bytes(field):
    if isinstance(field, (MaskPlan, np.ndarray)):
        return field.nbytes
    if isinstance(field, tuple):
        return 8 * len(field)
    return 8


def _bracketed(plan, kinds):
    return f"({plan!r})" if isinstance(plan, kinds) else repr(plan)


def dense_plan(mask):
    """The plan of a boolean array, at least 2-D."""
    array = boolean(mask, "mask")
    array = array.reshape((1,) * (2 - array.ndim) + array.shape)
    return Dense(_distinct(array), array.shape)


def _as_plan(mask):
    return mask if isinstance(mask, MaskPlan) else dense_plan(mask)


def _combine(kind, first, second):
    if not all(isinstance(x, MaskPlan) or hasattr(x, "__array__") for x in (first, second)):
        return NotImplemented
    neutral = All() if kind is And else ~All()
    first, second, operands = _as_plan(first), _as_plan(second), []
    for plan in (first, second):
        for p in plan._fields if isinstance(plan, kind) else (plan,):
            # Large arrays are not worth comparing just to drop a repetition.
            repeated = any(p is o or (p.nbytes <= 4096 and p == o) for o in operands)
            operands += [] if repeated or p == neutral else [p]
    if len(operands) < 2:
        return operands[0] if operands else neutral
    (q0, k0), (q1, k1) = first._extents(), second._extents()
    if (q0 is not None and q1 is not None and q0 != q1) or (k0 is not None and k1 is not None and k0 != k1):
        raise ValueError(f"masks for (Lq, Lk) = {(q0, k0)} and {(q1, k1)} do not combine")
    plan = kind(*operands)
    try:
        plan._batch_shape()
    except ValueError:
        shapes = tuple(p._batch_shape() for p in operands)
        raise ValueError(f"masks with the leading axes {shapes} do not broadcast together") from None
    return plan


def lower(mask, Lq, Lk, batch_shape, *, offset=None):
    """Postfix nodes of a mask for the C core.

    Parameters
    ----------
    mask : MaskPlan, array_like of bool or 0/1 integers, or None
        None allows every pair.
    Lq, Lk : int
        Extents of the call.
    batch_shape : tuple of int
        Broadcast leading axes of the call.
    offset : int, optional
        Position of query 0 for patterns without an offset of their own; None means Lk - Lq.

    Returns
    -------
    list of tuple
        As read by csrc/python/plan_py.c. Matrices are views broadcast to ``batch_shape`` and their own last axes.

    Raises
    ------
    TypeError, ValueError
        Naming mask=, with both shapes.
    """
    if mask is None:
        return []
    plan = _as_plan(mask)
    if not isinstance(plan, Dense):  # whose own message shows the whole shape
        _check_extents(plan, Lq, Lk)
    nodes = plan._nodes(Lq, Lk, tuple(batch_shape), Lk - Lq if offset is None else offset)
    if len(nodes) > _MAX_NODES:
        raise ValueError(f"mask= combines {len(nodes)} patterns and operators, at most {_MAX_NODES} fit")
    return nodes
