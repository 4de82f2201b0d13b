"""What comes in as an array, how (without a copy), and what is refused with which words."""

import os

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import attnkit
from attnkit import _core, masks
from attnkit._engine import as_array, as_floats

BF16 = np.dtype(ml_dtypes.bfloat16)
FLOATS = [np.dtype(np.float16), BF16, np.dtype(np.float32), np.dtype(np.float64)]
MIB = 1 << 20


def arrays(dtype=np.float32, shape=(2, 60, 8), seed=0, n=3):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for _ in range(n)]


def same(call, arrays_, views_):
    """The call gives the same bytes for contiguous arrays and for the views that hold the same numbers."""
    for x, y in zip(arrays_, views_, strict=True):
        assert x.shape == y.shape
        np.testing.assert_array_equal(x, np.asarray(y))
    expected, found = call(*arrays_), call(*views_)
    assert found.dtype == expected.dtype
    assert found.tobytes() == expected.tobytes()


# ---- views: any strides, no copy --------------------------------------------------------------------------------------------


def misaligned(x):
    raw = np.empty(x.nbytes + 64, np.uint8)
    start = (1 - raw.ctypes.data) % 64
    view = raw[start : start + x.nbytes].view(x.dtype).reshape(x.shape)
    view[...] = x
    assert not view.flags.aligned
    return view


def read_only(x):
    view = x.copy()
    view.flags.writeable = False
    return view


class Subclass(np.ndarray):
    def __array_finalize__(self, other):
        self.note = "kept"


LAYOUTS = {
    "length, heads, features": lambda x: np.ascontiguousarray(np.moveaxis(x, -3, -2)).swapaxes(-3, -2),
    "features first": lambda x: np.ascontiguousarray(np.moveaxis(x, -1, 0)).transpose(1, 2, 0),
    "negative": lambda x: np.ascontiguousarray(x[::-1, ::-1, ::-1])[::-1, ::-1, ::-1],
    "every other": lambda x: np.repeat(np.repeat(x, 2, -1), 3, -2)[..., ::3, ::2],
    "misaligned": misaligned,
    "misaligned every other": lambda x: misaligned(np.repeat(x, 2, -1))[..., ::2],
    "read-only": read_only,
    "subclass": lambda x: x.copy().view(Subclass),
    "record field": lambda x: np.rec.fromarrays([np.zeros(x.shape, np.int8), x], names="pad,value")["value"],
    "Fortran": np.asfortranarray,
}


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_give_the_same_bytes(layout, dtype):
    inputs = arrays(dtype)
    views = [LAYOUTS[layout](x) for x in inputs]
    assert all(type(as_floats("q", x)) in (np.ndarray, Subclass, np.recarray) and np.shares_memory(as_floats("q", x), x) for x in views)
    same(attnkit.softmax_attention, inputs, views)
    same(lambda q, k, v: attnkit.attention_logits(q, k), inputs, views)
    same(lambda q, k, v: attnkit.attention_column_stats(q, k)["received"], inputs, views)
    bias = arrays(dtype, (2, 60, 60), n=1)
    same(lambda b: attnkit.softmax_attention(*inputs, bias=b), bias, [LAYOUTS[layout](bias[0])])
    mask = [np.random.default_rng(1).integers(0, 2, (2, 60, 60)).astype(bool)]
    if layout not in ("misaligned", "misaligned every other", "record field"):
        same(lambda m: attnkit.softmax_attention(*inputs, mask=m, dropout_mask=m, dropout_p=0.5), mask, [LAYOUTS[layout](mask[0])])


Q, K, V = arrays()
ZERO_STRIDES = {
    "one head of keys": (Q, np.broadcast_to(K[:1], K.shape), np.broadcast_to(V[:1], V.shape)),
    "one query": (np.broadcast_to(Q[:, :1], Q.shape), K, V),
    "one key": (Q, np.broadcast_to(K[:, :1], K.shape), np.broadcast_to(V[:, :1], V.shape)),
    "one feature": (np.broadcast_to(Q[..., :1], Q.shape), np.broadcast_to(K[..., :1], K.shape), V),
    "one number": (np.broadcast_to(np.float32(2), Q.shape),) * 3,
}


@pytest.mark.parametrize("name", ZERO_STRIDES)
def test_zero_strides(name):
    views = ZERO_STRIDES[name]
    same(attnkit.softmax_attention, [np.ascontiguousarray(x) for x in views], views)


def test_axes_of_length_one_with_absurd_strides():
    q, k, v = arrays(shape=(1, 1, 8))
    absurd = [np.lib.stride_tricks.as_strided(x, x.shape, (1 << 61, -(1 << 60) + 3, 4)) for x in (q, k, v)]
    same(attnkit.softmax_attention, [q, k, v], absurd)
    same(lambda q, k, v: attnkit.attention_logits(q, k), [q, k, v], absurd)
    bias = np.lib.stride_tricks.as_strided(np.ones((1, 1, 1), np.float32), (1, 1, 1), (1 << 61, 1 << 61, 1 << 61))
    same(lambda b: attnkit.softmax_attention(q, k, v, bias=b), [bias.copy()], [bias])


@given(data=st.data())
def test_any_strides(data):
    """Random dtype, axis order, steps, signs and misalignment of all three operands."""
    dtype = data.draw(st.sampled_from(FLOATS))
    lq, lk, d, dv = (data.draw(st.integers(low, high)) for low, high in ((1, 70), (0, 300), (1, 20), (0, 20)))
    inputs = [arrays(dtype, shape, seed)[0] for seed, shape in enumerate([(2, lq, d), (1, lk, d), (2, lk, dv)])]

    def spread(x):
        order = data.draw(st.permutations(range(3)))
        steps = [data.draw(st.sampled_from([1, 2, -1, -3])) for _ in range(3)]
        big = np.zeros([n * abs(s) for n, s in zip(x.shape, steps)], dtype).transpose(order)
        big = np.ascontiguousarray(big)
        if data.draw(st.booleans()):
            big = misaligned(big) if big.size else big
        view = big.transpose(np.argsort(order))[tuple(slice(None, None, s) for s in steps)]
        view = view[tuple(slice(0, n) for n in x.shape)]
        view[...] = x
        return view

    options = data.draw(st.sampled_from([{}, {"causal": True}, {"window": (5, 2)}, {"mask": masks.window(9) | masks.prefix(3)}]))
    same(lambda q, k, v: attnkit.softmax_attention(q, k, v, **options), inputs, [spread(x) for x in inputs])


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("page", [32, 48, 33])
def test_pages_of_any_layout(dtype, page):
    """Pages of a multiple of 16 keys are read in place, others gathered."""
    q = arrays(dtype, (2, 4, 3, 8), n=1)[0]
    pages = arrays(dtype, (5, 2, page, 8), n=2)
    table, lengths = [[4, 0, 2], [1, 3, 3]], [3 * page - 5, page + 1]

    def call(k, v):
        return attnkit.paged_attention(q, k, v, table, lengths, window=(70, 0))

    whole = call(*pages)
    for b, n in enumerate(lengths):
        k, v = (np.concatenate([x[i] for i in table[b]], axis=1)[:, :n] for x in pages)
        assert whole[b].tobytes() == attnkit.softmax_attention(q[b], k, v, causal=True, window=(70, 0)).tobytes()
    for layout, make in LAYOUTS.items():
        if layout != "features first":  # of three axes
            same(call, pages, [make(x) if layout != "negative" else np.ascontiguousarray(x[::-1, :, ::-1])[::-1, :, ::-1] for x in pages])
    poisoned = [x.copy() for x in pages]
    for x in poisoned:
        x[2, :, page - 5 :] = np.nan  # beyond the end of the first sequence
        x[3, :, 1:] = np.nan  # and of the second
    assert call(*poisoned).tobytes() == whole.tobytes()


# ---- no copy: pointers and memory -------------------------------------------------------------------------------------------


def test_what_reaches_the_core_is_the_memory_that_came_in(monkeypatch):
    """The arrays handed to C start where the caller's arrays start, with the caller's strides."""
    seen = []
    attend = _core.attend
    monkeypatch.setattr(_core, "attend", lambda *args: seen.append(args[:3]) or attend(*args))
    for dtype in FLOATS:
        for layout, make in LAYOUTS.items():
            views = [make(x) for x in arrays(dtype)]
            attnkit.softmax_attention(*views)
            for given_, taken in zip(views, seen.pop(), strict=True):
                assert taken.ctypes.data == given_.ctypes.data and taken.strides == given_.strides, (layout, dtype)
    objects = [ArrayObject(x) for x in arrays()], [DLPackObject(x) for x in arrays()], [memoryview(x) for x in arrays()]
    for views in objects:
        attnkit.softmax_attention(*views)
        for given_, taken in zip(views, seen.pop(), strict=True):
            inner = np.asarray(given_) if isinstance(given_, memoryview) else given_.x
            assert taken.ctypes.data == inner.ctypes.data and taken.strides == inner.strides


MEMORY = """
import resource
import numpy as np, attnkit
MIB = 1 << 20
path = SAVE
x = np.ones((3000, 8), np.float32)
attnkit.softmax_attention(x, x, x, window=(4, 0))
big = VIEW
with open("/proc/self/statm") as f:
    used = int(f.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 24 * MIB, used + 24 * MIB))
out = attnkit.softmax_attention(big[..., :50, :], big[..., -300:, :], big[..., -300:, :])
state = attnkit.attention_row_stats(big[..., -1:, :], big)
assert state["n_allowed"].ravel()[0] == big.shape[-2]
try:
    big.copy()
except MemoryError:
    print("a copy would not fit")
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm") or bool(_core.build_info()["sanitizers"]), reason="needs /proc and no sanitizer")
@pytest.mark.parametrize("view", [
    "np.ones((1 << 20, 16), np.float32)",
    "np.ones((16, 1 << 20), np.float32).T",
    "np.ones((1 << 20, 16), np.float32)[::-1, ::-1]",
    "np.ones((1 << 20, 1, 16), np.float32).swapaxes(0, 1)",
    "np.ones(((1 << 26) + 1), np.uint8)[1:].view(np.float32).reshape(1 << 20, 16)",
    "np.memmap(path, np.float32, 'r', shape=(1 << 20, 16))",
    "np.memmap(path, np.float16, 'r', shape=(1 << 21, 16))",
    "np.ones((1 << 20, 16), np.float32).view(type('Mine', (np.ndarray,), {}))",
])
def test_operands_of_64_mib_are_read_where_they_lie(view, run_python, tmp_path):
    path = tmp_path / "numbers.bin"
    if "memmap" in view:
        np.ones((1 << 24), np.float32).tofile(path)
    assert run_python(MEMORY.replace("SAVE", repr(str(path))).replace("VIEW", view)) == "a copy would not fit\n"


def test_more_than_2_to_the_31_elements():
    """Extents that overflow 32 bits, by zero strides: keys, heads and rows."""
    x = np.random.default_rng(0).standard_normal((1, 2)).astype(np.float32)
    many = np.broadcast_to(x, ((1 << 31) + 5, 2))
    out, lse, stats = attnkit.softmax_attention(x, many, many, window=(700, 0), return_lse=True, stats="n_allowed")
    assert stats["n_allowed"][0] == 701
    np.testing.assert_allclose(out, x, rtol=1e-5)  # 701 roundings that may all go one way
    np.testing.assert_allclose(lse, np.log(701) + (x.astype(float) @ x.T)[0] / 2**0.5, rtol=1e-6)
    top = attnkit.attention_row_stats(x, many, window=(2, 0), topk=1)
    assert top["argmax"][0] == (1 << 31) + 2 and top["topk_index"][0, 0] == (1 << 31) + 2
    tall = np.broadcast_to(x, (1 << 31, 1, 2))[..., :0, :]  # 2**31 heads without a query
    assert attnkit.softmax_attention(tall, x, x).shape == (1 << 31, 0, 2)
    part = attnkit.attention_weights(x, many, cols=[(1 << 31) + 4, 3], lse=0.0)
    assert part[0, 0] == part[0, 1] > 0


# ---- types that are converted -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_byte_swapped_arrays_are_converted(dtype):
    inputs = arrays(dtype)
    swapped = [x.astype(x.dtype.newbyteorder()) for x in inputs]
    assert all(not x.dtype.isnative for x in swapped)
    same(attnkit.softmax_attention, inputs, swapped)
    assert attnkit.softmax_attention(*swapped).dtype.isnative
    bias = inputs[0] @ inputs[1].swapaxes(-1, -2)
    same(lambda b: attnkit.attention_logits(*inputs[:2], bias=b), [bias], [bias.astype(bias.dtype.newbyteorder())])


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64, np.uint64, bool])
def test_integers_and_bool_compute_in_float64(dtype):
    inputs = [np.round(x * 3).astype(dtype) for x in arrays()]
    result = attnkit.softmax_attention(*inputs)
    assert result.dtype == np.float64
    assert result.tobytes() == attnkit.softmax_attention(*[x.astype(float) for x in inputs]).tobytes()


def test_lists_and_scalars_of_lists():
    assert attnkit.softmax_attention([[1.0, 0.0]], [[1, 0], [0, 1]], [[2.0], [2.0]]).tolist() == [[2.0]]


class ArrayObject:
    """Nothing but `__array__`."""

    def __init__(self, x):
        self.x = x

    def __array__(self, dtype=None, copy=None):
        return self.x


class DLPackObject:
    """Nothing but DLPack."""

    def __init__(self, x):
        self.x = x

    def __dlpack__(self, **options):
        return self.x.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.x.__dlpack_device__()


@pytest.mark.parametrize("wrap", [ArrayObject, DLPackObject])
def test_foreign_arrays(wrap):
    inputs = arrays()
    assert attnkit.softmax_attention(*map(wrap, inputs)).tobytes() == attnkit.softmax_attention(*inputs).tobytes()
    assert np.shares_memory(as_array("q", wrap(inputs[0])), inputs[0])
    mask = np.tri(60, dtype=bool)
    bias = np.ones((60, 60), np.float32)
    found = attnkit.softmax_attention(*inputs, mask=wrap(mask), bias=wrap(bias), dropout_mask=wrap(mask), dropout_p=0.5,
                                      sink_logits=wrap(np.ones(2)), alibi_slopes=wrap(np.ones(2)))
    expected = attnkit.softmax_attention(*inputs, mask=mask, bias=bias, dropout_mask=mask, dropout_p=0.5, sink_logits=np.ones(2),
                                         alibi_slopes=np.ones(2))
    assert found.tobytes() == expected.tobytes()


class OnGPU:
    def __dlpack__(self, **options):
        raise BufferError("the data is on device cuda:0")

    def __dlpack_device__(self):
        return (2, 0)


class Stubborn:
    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("call .detach() first")


# ---- torch -------------------------------------------------------------------------------------------------------------------


def test_torch_tensors_come_in_without_a_copy():
    torch = pytest.importorskip("torch")
    inputs = arrays()
    tensors = [torch.from_numpy(x) for x in inputs]
    assert attnkit.softmax_attention(*tensors).tobytes() == attnkit.softmax_attention(*inputs).tobytes()
    assert as_floats("q", tensors[0]).ctypes.data == tensors[0].data_ptr()
    strided = tensors[0].transpose(0, 1).contiguous().transpose(0, 1)
    assert attnkit.softmax_attention(strided, *tensors[1:]).tobytes() == attnkit.softmax_attention(*inputs).tobytes()
    assert as_floats("q", strided).ctypes.data == strided.data_ptr()
    mask = torch.ones(60, 60, dtype=torch.bool).tril()
    assert attnkit.softmax_attention(*tensors, mask=mask).tobytes() == attnkit.softmax_attention(*inputs, mask=mask.numpy()).tobytes()


def test_torch_bfloat16():
    torch = pytest.importorskip("torch")
    inputs = arrays(BF16)
    tensors = [torch.from_numpy(x.astype(np.float32)).bfloat16() for x in inputs]
    result = attnkit.softmax_attention(*tensors)
    assert result.dtype == BF16 and result.tobytes() == attnkit.softmax_attention(*inputs).tobytes()
    assert as_floats("q", tensors[0]).ctypes.data == tensors[0].data_ptr()
    strided = tensors[0].transpose(0, 1).contiguous().transpose(0, 1)
    assert as_floats("q", strided).ctypes.data == strided.data_ptr()


def test_torch_tensors_that_cannot_be_read():
    torch = pytest.importorskip("torch")
    q, k, v = (torch.from_numpy(x) for x in arrays())
    with pytest.raises(TypeError, match=r"k is a tensor that requires grad; pass k\.detach\(\)"):
        attnkit.softmax_attention(q, k.clone().requires_grad_(), v)
    with pytest.raises(TypeError, match=r"v is a tensor that requires grad; pass v\.detach\(\)"):
        attnkit.softmax_attention(q, k, torch.nn.Parameter(v))
    with pytest.raises(TypeError, match="v is a tensor on meta"):
        attnkit.softmax_attention(q, k, v.to("meta"))
    with pytest.raises(TypeError, match="^q"):
        attnkit.softmax_attention(q.to_sparse(), k, v)
    with pytest.raises(TypeError, match="^k"):
        attnkit.softmax_attention(q, k.to(torch.complex64), v)
    with pytest.raises(TypeError, match=r"bias is a tensor that requires grad; pass bias\.detach\(\)"):
        attnkit.softmax_attention(q, k, v, bias=torch.ones(60, 60).requires_grad_())


# ---- refusals ----------------------------------------------------------------------------------------------------------------


class Sparse:
    """What the sparse matrices of SciPy and others look like from outside."""

    shape, nnz = (60, 8), 3

    def toarray(self):
        return np.zeros(self.shape)


def sparse():
    try:
        from scipy.sparse import coo_array
    except ImportError:
        return Sparse()
    return coo_array(np.eye(60, 8))


X = np.ones((60, 8), np.float32)
REFUSED = {
    "masked": np.ma.masked_array(X, X > 0),
    "masked without a mask": np.ma.masked_array(X),
    "list of masked": [np.ma.masked_array(X[0], True)] * 60,
    "object": X.astype(object),
    "None inside": [[None] * 8] * 60,
    "complex": X.astype(complex),
    "longdouble": X.astype(np.longdouble),
    "strings": X.astype(str),
    "bytes": X.astype(bytes),
    "datetime": X.astype("M8[s]"),
    "timedelta": X.astype("m8[s]"),
    "record": np.zeros((60, 8), "f4,f4"),
    "float8": X.astype(ml_dtypes.float8_e4m3fn),
    "int4": X.astype(ml_dtypes.int4),
    "sparse": sparse(),
    "sparse stand-in": Sparse(),
    "ragged": [[1.0], [1.0, 2.0]],
    "None": None,
    "dictionary": {"a": 1},
    "function": len,
    "string": "q",
    "on a GPU": OnGPU(),
    "will not": Stubborn(),
    "plan": masks.causal(),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("name", ["q", "k", "v"])
def test_refused_operands_are_named(kind, name):
    operands = {"q": X, "k": X, "v": X, name: REFUSED[kind]}
    with pytest.raises(TypeError, match=rf"^{name} "):
        attnkit.softmax_attention(operands["q"], operands["k"], operands["v"])
    if name != "v":
        for call in (attnkit.attention_logits, attnkit.attention_weights, attnkit.attention_row_stats, attnkit.attention_column_stats):
            with pytest.raises(TypeError, match=rf"^{name} "):
                call(operands["q"], operands["k"])
        with pytest.raises(TypeError, match=rf"^{name} "):
            attnkit.attention_block_mass(operands["q"], operands["k"], block_q=4, block_k=4)


@pytest.mark.parametrize("call", [attnkit.softmax_attention, attnkit.attention_state,
                                  lambda q, k, v: attnkit.varlen_attention(q, k, v, [0, 60], [0, 60]),
                                  lambda q, k, v: attnkit.block_sparse_attention(q, k, v, [[1]], block_q=60, block_k=60)])
def test_v_is_needed(call):
    with pytest.raises(TypeError, match="^v "):
        call(X, X, None)


@pytest.mark.parametrize("kind", [kind for kind in REFUSED if kind not in ("None", "plan", "sparse stand-in")])
@pytest.mark.parametrize("option", ["bias", "alibi_slopes", "sink_logits", "mask", "dropout_mask", "lse", "row_weights", "groups"])
def test_refused_options_are_named(kind, option):
    value = REFUSED[kind]
    with pytest.raises((TypeError, ValueError), match=rf"^{option}\b"):
        if option == "lse":
            attnkit.attention_weights(X, X, lse=value)
        elif option == "row_weights":
            attnkit.attention_column_stats(X, X, row_weights=value)
        elif option == "groups":
            attnkit.attention_row_stats(X, X, groups=value)
        elif option == "dropout_mask":
            attnkit.softmax_attention(X, X, X, dropout_mask=value, dropout_p=0.5)
        else:
            attnkit.softmax_attention(X, X, X, **{option: value})


def test_additive_masks_are_pointed_to_bias():
    for dtype in (np.float32, np.float16, BF16):
        with pytest.raises(TypeError, match="^mask.*bias="):
            attnkit.softmax_attention(X, X, X, mask=np.zeros((60, 60), dtype))
    with pytest.raises(ValueError, match="^mask.*0 and 1"):
        attnkit.softmax_attention(X, X, X, mask=np.full((60, 60), 2))


def test_half_types_do_not_mix():
    with pytest.raises(TypeError, match="float16 and bfloat16.*q float16.*k bfloat16"):
        attnkit.softmax_attention(X.astype(np.float16), X.astype(BF16), X)


SHAPES = {
    "features": ((X, X[:, :7], X), ValueError, ["q", "k", "(60, 8)", "(60, 7)"]),
    "length": ((X, X, X[:9]), ValueError, ["k", "v", "(60, 8)", "(9, 8)"]),
    "one axis": ((X[0], X, X), ValueError, ["q", "(8,)"]),
    "one axis of k": ((X, X[0], X), ValueError, ["k", "(8,)"]),
    "one axis of v": ((X, X, X[0]), ValueError, ["v", "(8,)"]),
    "no axis": ((1.0, X, X), ValueError, ["q", "()"]),
    "heads": ((np.ones((4, 6, 8)), np.ones((3, 6, 8)), np.ones((3, 6, 8))), ValueError, ["heads", "(4, 6, 8)", "(3, 6, 8)"]),
    "batch": ((np.ones((2, 4, 6, 8)), np.ones((3, 4, 6, 8)), np.ones((3, 4, 6, 8))), ValueError, ["q", "k", "(2, 4, 6, 8)", "(3, 4, 6, 8)"]),
    "heads of v": ((np.ones((4, 6, 8)), np.ones((2, 6, 8)), np.ones((4, 6, 8))), ValueError, ["k", "v", "(2, 6, 8)", "(4, 6, 8)"]),
    "too many axes": ((np.ones((1,) * 31 + (8,)),) * 3, ValueError, ["axes"]),
}


@pytest.mark.parametrize("case", SHAPES)
def test_shapes_that_do_not_fit_are_shown(case):
    operands, kind, words = SHAPES[case]
    with pytest.raises(kind) as error:
        attnkit.softmax_attention(*operands)
    for word in words:
        assert word in str(error.value), str(error.value)


OPTIONS = {
    "scale nan": (dict(scale=np.nan), ValueError, ["scale", "nan"]),
    "scale text": (dict(scale="big"), TypeError, ["scale", "str"]),
    "scale bool": (dict(scale=True), TypeError, ["scale"]),
    "scale huge": (dict(scale=10**400), ValueError, ["scale"]),
    "causal text": (dict(causal="left"), ValueError, ["causal", "lower_right", "'left'"]),
    "causal number": (dict(causal=1), TypeError, ["causal", "int"]),
    "window size": (dict(window=(1, 2, 3)), ValueError, ["window", "3"]),
    "window number": (dict(window=3), TypeError, ["window", "int"]),
    "window text": (dict(window="ab"), TypeError, ["window", "str"]),
    "window float": (dict(window=(1.5, 0)), TypeError, ["window", "float"]),
    "softcap": (dict(softcap=-1), ValueError, ["softcap", "-1"]),
    "q_offset float": (dict(q_offset=1.0), TypeError, ["q_offset", "float"]),
    "q_offset huge": (dict(q_offset=1 << 62), ValueError, ["q_offset", "2**62"]),
    "bias shape": (dict(bias=np.ones((60, 61))), ValueError, ["bias", "(60, 61)", "(60, 60)"]),
    "bias axes": (dict(bias=np.ones((2, 60, 60))), ValueError, ["bias", "(2, 60, 60)"]),
    "mask shape": (dict(mask=np.ones((60, 61), bool)), ValueError, ["mask", "(60, 61)", "(60, 60)"]),
    "plan extents": (dict(mask=masks.documents([0] * 61)), ValueError, ["mask", "(61, 61)", "(60, 60)"]),
    "slopes": (dict(alibi_slopes=np.ones(3)), ValueError, ["alibi_slopes", "(3,)"]),
    "sinks": (dict(sink_logits=np.ones(3)), ValueError, ["sink_logits", "(3,)", "60"]),
    "dropout shape": (dict(dropout_mask=np.ones((60, 61), bool), dropout_p=0.5), ValueError, ["dropout_mask", "(60, 61)", "(60, 60)"]),
    "dropout alone": (dict(dropout_p=0.5), ValueError, ["dropout_p", "dropout_mask"]),
    "dropout_p": (dict(dropout_p=1.5, dropout_mask=np.ones((60, 60), bool)), ValueError, ["dropout_p", "1.5"]),
    "dropout_p text": (dict(dropout_p="x"), TypeError, ["dropout_p", "str"]),
    "dropout_mask float": (dict(dropout_mask=np.ones((60, 60)), dropout_p=0.5), TypeError, ["dropout_mask", "float64"]),
    "return_lse": (dict(return_lse=1), TypeError, ["return_lse", "int"]),
    "return_weights": (dict(return_weights="yes"), TypeError, ["return_weights", "str"]),
    "stats": (dict(stats="entropie"), ValueError, ["stats", "'entropie'", "entropy"]),
    "stats type": (dict(stats=7), TypeError, ["stats", "int"]),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_options_that_do_not_fit_are_named(case):
    options, kind, words = OPTIONS[case]
    with pytest.raises(kind) as error:
        attnkit.softmax_attention(X, X, X, **options)
    for word in words:
        assert word in str(error.value), str(error.value)


CALLS = {
    "topk": (lambda: attnkit.attention_row_stats(X, X, topk=-1), ValueError, ["topk", "-1"]),
    "topk float": (lambda: attnkit.attention_row_stats(X, X, topk=1.0), TypeError, ["topk", "float"]),
    "sink_size": (lambda: attnkit.attention_row_stats(X, X, sink_size=-1), ValueError, ["sink_size", "-1"]),
    "groups": (lambda: attnkit.attention_row_stats(X, X, groups=[0, 1]), ValueError, ["groups", "(60,)", "(2,)"]),
    "n_groups": (lambda: attnkit.attention_row_stats(X, X, n_groups=3), ValueError, ["n_groups", "groups"]),
    "extra": (lambda: attnkit.attention_row_stats(X, X, extra="all"), ValueError, ["extra", "'all'", "abs_distance"]),
    "rows": (lambda: attnkit.attention_column_stats(X, X, rows=[60]), ValueError, ["rows", "60"]),
    "rows text": (lambda: attnkit.attention_column_stats(X, X, rows="all"), TypeError, ["rows"]),
    "rows mask": (lambda: attnkit.attention_column_stats(X, X, rows=np.ones(61, bool)), ValueError, ["rows", "(60,)", "(61,)"]),
    "rows matrix": (lambda: attnkit.attention_weights(X, X, rows=[[0]]), ValueError, ["rows", "(1, 1)"]),
    "cols": (lambda: attnkit.attention_weights(X, X, cols=[-61]), ValueError, ["cols", "-61"]),
    "heads": (lambda: attnkit.attention_weights(X, X, heads=0), ValueError, ["heads", "(60, 8)"]),
    "heads range": (lambda: attnkit.attention_weights(X[None], X[None], heads=1), ValueError, ["heads", "1"]),
    "lse": (lambda: attnkit.attention_weights(X, X, lse=np.ones(3)), ValueError, ["lse", "(3,)", "(60,)"]),
    "row_weights": (lambda: attnkit.attention_column_stats(X, X, row_weights=np.ones(3)), ValueError, ["row_weights", "(3,)", "(60,)"]),
    "block_q": (lambda: attnkit.attention_block_mass(X, X, block_q=0, block_k=1), ValueError, ["block_q", "0"]),
    "reduce": (lambda: attnkit.attention_block_mass(X, X, block_q=1, block_k=1, reduce="total"), ValueError, ["reduce", "'total'", "row_mean"]),
    "block_mask": (lambda: attnkit.block_sparse_attention(X, X, X, np.ones((2, 2), bool)), ValueError, ["mask", "(2, 2)", "1, 1"]),
    "block_mask float": (lambda: attnkit.block_sparse_attention(X, X, X, np.ones((1, 1))), TypeError, ["block_mask", "float64"]),
    "cu_seqlens_q": (lambda: attnkit.varlen_attention(X, X, X, [0, 61], [0, 60]), ValueError, ["cu_seqlens_q", "60", "61"]),
    "cu_seqlens_k": (lambda: attnkit.varlen_attention(X, X, X, [0, 60], [0, 30, 20, 60]), ValueError, ["cu_seqlens_k", "ascend"]),
    "cu_seqlens float": (lambda: attnkit.varlen_attention(X, X, X, [0.0, 60.0], [0, 60]), TypeError, ["cu_seqlens_q", "float64"]),
    "varlen v": (lambda: attnkit.varlen_attention(X, X[:50], X, [0, 60], [0, 50]), ValueError, ["k (50, 8)", "v (60, 8)"]),
    "page_table": (lambda: attnkit.paged_attention(X[None, None], X[None, None], X[None, None], [[1]], [60]), ValueError, ["page_table", "0..0"]),
    "seq_lens": (lambda: attnkit.paged_attention(X[None, None], X[None, None], X[None, None], [[0]], [61]), ValueError, ["seq_lens", "61"]),
    "q_pages": (lambda: attnkit.paged_attention(X, X[None, None], X[None, None], [[0]], [6]), ValueError, ["q", "4 axes", "(60, 8)"]),
    "states": (lambda: attnkit.merge_states([1]), TypeError, ["states", "int"]),
    "no states": (lambda: attnkit.merge_states([]), ValueError, ["states", "empty"]),
}


@pytest.mark.parametrize("case", CALLS)
def test_other_functions_name_what_is_wrong(case):
    call, kind, words = CALLS[case]
    with pytest.raises(kind) as error:
        call()
    for word in words:
        assert word in str(error.value), str(error.value)
