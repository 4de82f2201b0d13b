"""out=: the bytes of a call without it, wherever the array lies; refused and failed calls leave it as it was."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import attnkit
from attnkit import _core, masks

BF16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = [np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16), BF16]
N = 50  # length and features: q, k, v, bias, mask and every result are (2, N, N); more rows than one block of the engine


def arrays(dtype=np.float32, seed=0, n=3, shape=(2, N, N)):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for _ in range(n)]


def blocks():
    return np.array([[1, 0, 1], [1, 1, 0], [0, 1, 1]], bool)


def cascade(q, k, v, **options):
    return attnkit.attention_cascade(q, k, v, block=16, **options)


def tiled(q, k, v, **options):
    return attnkit.flash_attention_tiled(q, k, v, block_q=16, block_k=16, **options)


# Calls of (q, k, v, **options) whose result has the shape of q: name, function, options that it takes, axes.
CALLS = {
    "softmax_attention": (attnkit.softmax_attention, {"bias", "mask"}, 3),
    "softmax_attention with weights": (lambda *x, **o: attnkit.softmax_attention(*x, return_weights=True, return_lse=True, **o)[0],
                                       {"bias", "mask"}, 3),
    "attention_logits": (lambda q, k, v, **o: attnkit.attention_logits(q, k, **o), {"bias", "mask"}, 3),
    "attention_weights": (lambda q, k, v, **o: attnkit.attention_weights(q, k, **o), {"bias", "mask"}, 3),
    "attention_weights by head": (lambda q, k, v, **o: attnkit.attention_weights(q, k, heads=[1, 0], **o), {"bias", "mask"}, 3),
    "block_sparse_attention": (lambda q, k, v, **o: attnkit.block_sparse_attention(q, k, v, blocks(), block_q=20, block_k=20, **o),
                               {"bias", "mask"}, 3),
    "varlen_attention": (lambda q, k, v, **o: attnkit.varlen_attention(q, k, v, [0, 20, N], [0, 30, N], **o), set(), 3),
    "paged_attention": (lambda q, k, v, **o: attnkit.paged_attention(q[:, None], k[:, None], v[:, None], [[1], [0]], [N, 33],
                                                                     out=o["out"][:, None] if "out" in o else None)[:, 0], set(), 3),
    "merge_partials": (lambda q, k, v, **o: attnkit.merge_partials(np.stack([q, k]), np.stack([q, k])[..., 0], **o)[0], set(), 3),
    "attention_cascade": (cascade, set(), 2),
    "flash_attention_tiled": (tiled, {"mask"}, 2),
}


def test_every_function_that_returns_an_output_has_a_row():
    import inspect

    have = {name for name in attnkit.exact.__all__ if inspect.isfunction(getattr(attnkit, name))
            and "out" in inspect.signature(getattr(attnkit, name)).parameters}
    assert have == {name.split()[0] for name in CALLS}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", ["C", "F", "negative", "sliced", "misaligned", "heads last", "subclass"])
def test_any_layout_of_out_gets_the_bytes_of_a_new_array(name, dtype, layout):
    call, _, ndim = CALLS[name]
    q, k, v = arrays(dtype)
    if ndim == 2:
        q, k, v = q[0], k[0], v[0]
    expected = call(q, k, v)
    shape, item = expected.shape, expected.dtype.itemsize
    raw = np.full(8 * expected.nbytes + 64, 0x5A, np.uint8)
    if layout == "C":
        out = np.empty(shape, expected.dtype)
    elif layout == "F":
        out = np.empty(shape, expected.dtype, order="F")
    elif layout == "negative":
        out = np.empty(shape, expected.dtype)[..., ::-1, ::-1]
    elif layout == "sliced":
        out = np.full((*shape[:-1], 2 * shape[-1]), 7, expected.dtype)[..., ::2]
    elif layout == "misaligned":
        start = (1 - raw.ctypes.data) % 64 + (0 if item > 1 else 1)
        out = raw[start : start + expected.nbytes].view(expected.dtype).reshape(shape)
        assert not out.flags.aligned
    elif layout == "heads last":
        out = np.moveaxis(np.empty((*shape[1:], shape[0]), expected.dtype), -1, 0)
    else:
        class Mine(np.ndarray):
            pass

        out = np.empty(shape, expected.dtype).view(Mine)
    given_out = out
    result = call(q, k, v, out=out)
    assert result is given_out or np.shares_memory(result, given_out)
    assert np.ascontiguousarray(out).tobytes() == expected.tobytes()
    if layout == "sliced":
        assert (out.base.reshape(*shape[:-1], -1)[..., 1::2] == 7).all()  # nothing between the elements is touched
    if layout == "misaligned":
        assert (raw[:start] == 0x5A).all() and (raw[start + expected.nbytes :] == 0x5A).all()


# ---- overlap -----------------------------------------------------------------------------------------------------------

@st.composite
def views(draw, ndim, itemsize, space):
    """A view of shape (2, N, N) or (N, N) into `space` elements: (offset in bytes, strides in bytes)."""
    lengths = [2, N, N][3 - ndim :]
    kind = draw(st.sampled_from(["C", "F", "swapped", "wide"]))
    order = list(range(ndim))
    if kind == "F":
        order.reverse()
    elif kind == "swapped":
        order[-1], order[-2] = order[-2], order[-1]
    step = 2 if kind == "wide" else 1
    strides = [0] * ndim
    for axis in reversed(order):
        strides[axis] = step * itemsize
        step *= lengths[axis]
    first = 0
    for axis in range(ndim):
        if draw(st.booleans()):
            first += strides[axis] * (lengths[axis] - 1)
            strides[axis] = -strides[axis]
    reach = sum(abs(s) * (n - 1) for s, n in zip(strides, lengths)) + itemsize
    shift = draw(st.sampled_from([0, 0, 1, N, N * N])) * itemsize + draw(st.sampled_from([0, 0, 0, 1]))
    return first + min(shift, space - reach), strides, lengths


@pytest.mark.parametrize("name", CALLS)
@settings(max_examples=settings().max_examples // 3)
@given(data=st.data())
def test_overlap_with_any_input_gives_the_bytes_of_copied_inputs(name, data):
    call, takes, ndim = CALLS[name]
    dtype = data.draw(st.sampled_from(DTYPES))
    item = dtype.itemsize
    space = (4 * N * N + 4 * N + 3) * item * 2
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    buffer = np.zeros(space, np.uint8)
    numbers = buffer[: space // item * item].view(dtype)
    numbers[:] = rng.standard_normal(numbers.size).astype(dtype)
    # With an odd offset any bytes may meet as a number; all patterns are fine, also NaN, but each must be the same either way.
    take = [data.draw(views(ndim, item, space)) for _ in range(5)]
    lie = [np.ndarray(lengths, dtype, buffer, offset, strides) for offset, strides, lengths in take]
    q, k, v, bias, out = lie
    options, copies = {}, {}
    if "bias" in takes and data.draw(st.booleans()):
        options["bias"], copies["bias"] = bias, bias.copy()
    if "mask" in takes and data.draw(st.booleans()):
        offset, strides, lengths = data.draw(views(ndim, 1, space))
        place = np.ndarray(lengths, np.uint8, buffer, offset, strides)
        place[:] = rng.integers(0, 2, lengths)  # over some of the numbers, so the copies are made after it
        options["mask"], copies["mask"] = place.view(bool), place.view(bool).copy()
        if "bias" in options:
            copies["bias"] = bias.copy()
    with np.errstate(all="ignore"):
        # The two papers' forms multiply with NumPy, which rounds by the layout of its operands: the same views there.
        inputs = (q, k, v) if ndim == 2 else (q.copy(), k.copy(), v.copy())
        expected = np.ascontiguousarray(call(*inputs, **copies))
        for x in ("mask", "bias"):
            if x in options:
                assert options[x].tobytes() == copies[x].tobytes()
        call(q, k, v, out=out, **options)
    assert np.ascontiguousarray(out).tobytes() == expected.tobytes()


def test_overlap_with_small_operands_and_a_plan():
    q, k, v = arrays()
    space = np.zeros(2 * N * N + 2 * N * N, np.float32)
    out = space[: 2 * N * N].reshape(2, N, N)
    lse = attnkit.softmax_attention(q, k, v, return_lse=True)[1]

    place = space[: 2 * N].reshape(2, N)
    for heads in (None, [0, 1], 1):
        place[:] = lse
        result = attnkit.attention_weights(q, k, heads=heads, lse=place.copy())
        target = out if heads != 1 else out[1:]
        attnkit.attention_weights(q, k, heads=heads, lse=place, out=target)
        assert target.tobytes() == result.tobytes()

    sink = space.view(np.float64)[:2]
    sink[:] = 0.5, 1.5
    expected = attnkit.softmax_attention(q, k, v, sink_logits=sink.copy())
    assert attnkit.softmax_attention(q, k, v, sink_logits=sink, out=out).tobytes() == expected.tobytes()

    slopes = space.view(np.float64)[:2]
    slopes[:] = 0.5, 1.5
    expected = attnkit.softmax_attention(q, k, v, alibi_slopes=slopes.copy())
    assert attnkit.softmax_attention(q, k, v, alibi_slopes=slopes, out=out).tobytes() == expected.tobytes()

    keep = space.view(bool)[: 2 * N * N].reshape(2, N, N)
    keep[:] = np.random.default_rng(1).integers(0, 2, keep.shape)
    expected = attnkit.softmax_attention(q, k, v, dropout_mask=keep.copy(), dropout_p=0.5)
    assert attnkit.softmax_attention(q, k, v, dropout_mask=keep, dropout_p=0.5, out=out).tobytes() == expected.tobytes()

    allowed = space.view(bool)[: N * N].reshape(N, N)
    allowed[:] = np.tri(N, dtype=bool)
    plan = masks.dense(allowed) & ~masks.prefix(1)
    expected = attnkit.softmax_attention(q, k, v, mask=np.array(plan))
    assert attnkit.softmax_attention(q, k, v, mask=plan, out=out).tobytes() == expected.tobytes()


# ---- refusals ----------------------------------------------------------------------------------------------------------


def refused(kind, call, out, *words, memory=None):
    """The call raises, says these words and leaves the memory of `out` as it was."""
    memory = out if memory is None else memory
    before = memory.tobytes()
    with pytest.raises(kind) as error:
        call(out)
    assert memory.tobytes() == before
    for word in words:
        assert word in str(error.value), str(error.value)


@pytest.mark.parametrize("name", CALLS)
def test_refused_arrays(name):
    call, _, ndim = CALLS[name]
    q, k, v = (x if ndim == 3 else x[0] for x in arrays())
    expected = call(q, k, v)
    shape = expected.shape

    def use(out):
        if name == "paged_attention":
            return attnkit.paged_attention(q[:, None], k[:, None], v[:, None], [[1], [0]], [N, 33], out=out)
        return call(q, k, v, out=out)

    whole = (2, 1, N, N) if name == "paged_attention" else shape
    refused(ValueError, use, np.ones((*whole[:-1], N + 1), np.float32), str(whole), str((*whole[:-1], N + 1)))
    refused(ValueError, use, np.ones(whole[1:], np.float32), str(whole), str(whole[1:]))
    refused(ValueError, use, np.ones((1, *whole), np.float32), str(whole), str((1, *whole)))
    refused(ValueError, use, np.ones(whole, np.float64), "float32", "float64")
    refused(ValueError, use, np.ones(whole, ">f4"), "float32", ">f4")
    frozen = np.ones(whole, np.float32)
    frozen.flags.writeable = False
    refused(ValueError, use, frozen, "read-only")
    refused(ValueError, use, np.broadcast_to(np.float32(1), whole), "read-only")
    ones = np.ones(64, np.float32)
    strides = tuple(4 for _ in whole)
    refused(ValueError, use, np.lib.stride_tricks.as_strided(ones, whole, strides), "overlaps itself", str(strides), memory=ones)
    refused(TypeError, use, np.ma.masked_array(np.ones(whole, np.float32)), "out", "MaskedArray")
    with pytest.raises(TypeError, match="out must be a NumPy array, got list"):
        use([[1.0]])


def test_axes_that_interlock_without_meeting_are_no_overlap():
    q, k, v = (x[0, :2, :3] for x in arrays())  # (2, 3): queries and keys of 3 features
    memory = np.zeros(16, np.float32)
    out = np.lib.stride_tricks.as_strided(memory, (2, 3), (12, 8))  # elements 0 2 4 and 3 5 7
    attnkit.softmax_attention(q, k, v, out=out)
    assert out.tobytes() == attnkit.softmax_attention(q, k, v).tobytes()
    met = np.lib.stride_tricks.as_strided(memory, (2, 3), (16, 8))  # elements 0 2 4 and 4 6 8
    refused(ValueError, lambda x: attnkit.softmax_attention(q, k, v, out=x), met, "overlaps itself", memory=memory)


def test_empty_out_is_fine_whatever_its_strides():
    q, k, v = np.zeros((3, 0, 4, 5), np.float32)
    out = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (0, 4, 5), (0, 0, 0))
    assert attnkit.softmax_attention(q, k, v, out=out) is out


LATE = {
    "stats name": dict(stats=("lse", "entropie")),
    "stats type": dict(stats=3),
    "dropout without mask": dict(dropout_p=0.5),
    "dropout_p": dict(dropout_p=1.0, dropout_mask=np.ones((N, N), bool)),
    "dropout_mask dtype": dict(dropout_mask=np.ones((N, N)), dropout_p=0.5),
    "dropout_mask shape": dict(dropout_mask=np.ones((N, N + 1), bool), dropout_p=0.5),
    "sink shape": dict(sink_logits=np.ones((2, N + 1))),
    "bias shape": dict(bias=np.ones((N, N + 1))),
    "slopes shape": dict(alibi_slopes=np.ones(3)),
    "mask shape": dict(mask=np.ones((N, N + 1), bool)),
    "mask dtype": dict(mask=np.ones((N, N))),
    "window": dict(window=(1, 2, 3)),
    "window type": dict(window=(1, 0.5)),
    "softcap": dict(softcap=-1.0),
    "causal": dict(causal="left"),
    "return_lse": dict(return_lse="yes"),
    "return_weights": dict(return_weights=2),
    "q_offset": dict(q_offset=1 << 70),
    "scale": dict(scale=float("nan")),
}


@pytest.mark.parametrize("case", LATE)
@pytest.mark.parametrize("sparse", [False, True])
def test_errors_found_late_leave_out_untouched(case, sparse):
    q, k, v = arrays()
    call = CALLS["block_sparse_attention"][0] if sparse else attnkit.softmax_attention
    refused((TypeError, ValueError), lambda out: call(q, k, v, out=out, **LATE[case]), np.full((2, N, N), 7, np.float32), case.split()[0].split("_")[0])


@pytest.mark.parametrize("options", [dict(rows=[99]), dict(cols=[0.5]), dict(heads=[2]), dict(lse=np.ones((2, 5))), dict(lse="x"),
                                     dict(heads=1, lse=np.ones((2, 5))), dict(heads=[0, 1], bias=np.ones((3, N, N)))], ids=str)
def test_windows_refused_late_leave_out_untouched(options):
    q, k, _ = arrays()
    shape = attnkit.attention_weights(q, k, heads=options["heads"]).shape if options.get("heads") in (1, [0, 1]) else (2, N, N)
    refused((TypeError, ValueError), lambda out: attnkit.attention_weights(q, k, out=out, **options), np.full(shape, 7, np.float32))


def test_a_call_that_runs_out_of_memory_leaves_out_untouched():
    """Also when the output is there before the map asks for its memory."""
    q, k, v = arrays()
    out = np.full((2, N, N), 7, np.float32)
    expected = attnkit.softmax_attention(q, k, v, return_weights=True)
    for n in range(1, 100):
        _core.alloc_fail_after(n)
        try:
            result = attnkit.softmax_attention(q, k, v, return_weights=True, out=out)
        except MemoryError:
            assert (out == 7).all(), n
        else:
            break
    assert n > 3 and result[0] is out
    assert all(x.tobytes() == y.tobytes() for x, y in zip(result, expected))
