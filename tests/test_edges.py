"""Exact at the edges: empty rows, poisoned keys, NaN and infinities, extents beyond 2^31, arrays of any make."""

import os
import warnings

import cases
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import attnkit
import attnkit.reference
from attnkit import masks

SCALE = float(os.environ.get("ATTNKIT_TEST_SCALE", "1"))  # multiplies the number of drawn cases
FLOAT_DTYPES = ["float32", "float64", "float16", "bfloat16"]
SCALARS = ("entropy", "purity", "max_weight", "sink_mass", "sink_logit_mass", "distance", "distance_sq", "mean_logit", "abs_distance")
STATS = ("lse", "n_allowed", "argmax", *SCALARS)


@pytest.fixture(autouse=True)
def no_warning_escapes():
    with np.errstate(all="raise"), warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def draw(rng, shape, dtype="float32"):
    with np.errstate(all="ignore"):
        return rng.standard_normal(shape).astype(cases.dtype_of(dtype))


def everything(q, k, v, **options):
    """name -> array of all that can be read off one attention."""
    out, lse, weights, stats = attnkit.softmax_attention(q, k, v, return_lse=True, return_weights=True, stats=STATS, **options)
    rows = attnkit.attention_row_stats(q, k, topk=4, groups=np.arange(k.shape[-2]) % 3, extra="abs_distance", **options)
    columns = attnkit.attention_column_stats(q, k, **options)
    blocks = attnkit.attention_block_mass(q, k, block_q=7, block_k=50, **options)
    logits = attnkit.attention_logits(q, k, **{n: x for n, x in options.items() if n != "sink_logits"})
    return {"out": out, "out lse": lse, "weights": weights, **{f"stats {n}": x for n, x in stats.items()},
            **{f"rows {n}": x for n, x in rows.items()}, **{f"columns {n}": x for n, x in columns.items()}, "blocks": blocks, "logits": logits}


def assert_equal_bytes(a, b, name):
    assert a.dtype == b.dtype and a.shape == b.shape, name
    assert a.tobytes() == b.tobytes(), name


# ---- rows without a key ----------------------------------------------------------------------------------------------

NOTHING = {
    "causal": {"causal": True, "q_offset": -5},
    "mask": {"mask": np.zeros((5, 9), bool)},
    "mask of heads": {"mask": np.zeros((2, 1, 1), bool)},
    "bias": {"bias": np.full((5, 9), -np.inf)},
    "window": {"window": (2, 2), "q_offset": 1000},
    "plan": {"mask": ~masks.full()},
    "two that exclude each other": {"mask": masks.prefix(3), "bias": np.where(np.arange(9) < 3, -np.inf, 0.0)},
}


@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
@pytest.mark.parametrize("options", [*NOTHING.values(), None], ids=[*NOTHING, "no keys"])
def test_rows_without_a_key(options, dtype):
    rng = np.random.default_rng(0)
    lk = 9 if options is not None else 0
    q, k, v = draw(rng, (2, 5, 3), dtype), draw(rng, (2, lk, 3), dtype), draw(rng, (2, lk, 4), dtype)
    for name, x in everything(q, k, v, **(options or {})).items():
        last = name.split()[-1]
        expected = -np.inf if last in ("lse", "logits") else -1 if last in ("argmax", "topk_index") else 0
        assert (x.astype(np.float64) == expected).all(), name
    # No zero of an empty row is negative.
    assert not np.signbit(attnkit.softmax_attention(q, k, -v, **(options or {})).astype(np.float64)).any()


def test_a_sink_alone():
    q, k, v = np.ones((2, 3, 4), np.float32), np.ones((2, 5, 4), np.float32), np.ones((2, 5, 4), np.float32)
    out, lse, stats = attnkit.softmax_attention(q, k, v, mask=False, sink_logits=[1.5, -2.0], return_lse=True, stats=STATS)
    assert (out == 0).all()
    np.testing.assert_allclose(lse, np.broadcast_to([[1.5], [-2.0]], (2, 3)), rtol=1e-6)
    assert (stats["sink_logit_mass"] == 1).all() and (stats["argmax"] == -1).all() and (stats["purity"] == 1).all()
    for name in ("n_allowed", "entropy", "max_weight", "sink_mass", "distance", "distance_sq", "mean_logit", "abs_distance"):
        assert (stats[name] == 0).all(), name


# ---- masked means untouched ------------------------------------------------------------------------------------------

LQ, LK = 61, 700  # two blocks of rows, three tiles, all ragged
HIDDEN = np.r_[3:9, 255:258, 400, 690:700]  # keys that nobody may see
VISIBLE = ~np.isin(np.arange(LK), HIDDEN)
HIDE = {
    "mask": {"mask": VISIBLE},
    "mask of rows": {"mask": np.random.default_rng(1).random((2, LQ, LK)) < np.where(VISIBLE, 0.6, 0.0)},
    "bias": {"bias": np.where(VISIBLE, 0.25, -np.inf)},
    "bias of rows": {"bias": np.where(VISIBLE, np.random.default_rng(2).standard_normal((LQ, LK)), -np.inf).astype(np.float32)},
    "plan": {"mask": masks.causal(offset=600) & masks.dense(VISIBLE)},
    "window": {"window": (300, 20), "q_offset": 350, "mask": VISIBLE},
    "softcap": {"mask": VISIBLE, "softcap": 2.0},
    "alibi": {"mask": VISIBLE, "alibi_slopes": [0.1, 0.01]},
    "sink": {"mask": VISIBLE, "sink_logits": [0.5, 1.0]},
}
POISON = [np.nan, np.inf, -np.inf]


@pytest.mark.parametrize("options", HIDE.values(), ids=HIDE)
@pytest.mark.parametrize("dtype, dv", [("float32", 32), ("float32", 5), ("float64", 8), ("float16", 16), ("bfloat16", 3)])
@pytest.mark.parametrize("lq", [LQ, 1])
def test_poisoned_keys_that_nobody_sees(options, dtype, dv, lq):
    rng = np.random.default_rng(3)
    q, k, v = draw(rng, (2, lq, 24), dtype), draw(rng, (2, LK, 24), dtype), draw(rng, (2, LK, dv), dtype)
    if lq == 1:
        options = {n: x[..., :1, :] if isinstance(x, np.ndarray) and x.ndim > 1 else x for n, x in options.items()}
    expected = everything(q, k, v, **options)
    for poison in POISON:
        k[:, HIDDEN], v[:, HIDDEN] = poison, poison
        for name, x in everything(q, k, v, **options).items():
            assert_equal_bytes(x, expected[name], f"{name} with {poison}")


@pytest.mark.parametrize("masking", ["mask", "bias", "plan", "causal", "dropout"])
@pytest.mark.parametrize("dtype, dv", [("float32", 32), ("float32", 20), ("float64", 16), ("float16", 8)])
def test_poison_stays_in_the_rows_that_see_it(masking, dtype, dv):
    """Row blocks, groups of six rows and register blocks share tiles; none may carry a neighbour's NaN."""
    rng = np.random.default_rng(4)
    q, k, v = draw(rng, (2, LQ, 16), dtype), draw(rng, (2, LK, 16), dtype), draw(rng, (2, LK, dv), dtype)
    allowed = rng.random((LQ, LK)) < 0.5
    options = {"mask": {"mask": allowed}, "bias": {"bias": np.where(allowed, 0.0, -np.inf)}, "plan": {"mask": masks.dense(allowed)},
               "causal": {"causal": "upper_left", "q_offset": 280}, "dropout": {"dropout_mask": allowed, "dropout_p": 0.5}}[masking]
    if masking == "causal":
        allowed = np.arange(LK) <= np.arange(LQ)[:, None] + 280
    bad = 310 if masking == "causal" else 301
    sees = allowed[:, bad]
    assert 10 < sees.sum() < LQ - 10
    expected = attnkit.softmax_attention(q, k, v, **options)
    for poison in POISON:
        w = v.copy()
        w[1, bad] = poison
        out = attnkit.softmax_attention(q, k, w, **options)
        assert_equal_bytes(out[:, ~sees], expected[:, ~sees], f"v = {poison}")
        assert_equal_bytes(out[0], expected[0], f"another head, v = {poison}")
        assert (out[1, sees] == poison).all() if np.isinf(poison) else np.isnan(out[1, sees].astype(np.float64)).all()
        if masking == "dropout":
            continue
        x = k.copy()
        x[1, bad, 3] = poison
        found, clean = everything(q, x, v, **options), everything(q, k, v, **options)
        for name in found:
            a, b = found[name], clean[name]
            assert_equal_bytes(a[0], b[0], f"{name} of another head, k = {poison}")
            if not name.startswith(("columns", "blocks")):
                assert_equal_bytes(a[1][~sees], b[1][~sees], f"{name}, k = {poison}")
        assert (found["stats n_allowed"] == clean["stats n_allowed"]).all() or np.isinf(poison)
        if np.isnan(poison):
            for name in ("out", "out lse", "rows entropy", "rows topk_weight", "rows group_mass"):
                assert np.isnan(found[name][1][sees].astype(np.float64)).all(), name
            assert (found["stats argmax"][1, sees] == -1).all() and (found["rows topk_index"][1, sees] == -1).all()


# ---- NaN in a query --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("options", [{}, {"causal": True, "q_offset": 80}, {"mask": masks.window(100, right=30, offset=50)}, {"softcap": 3.0},
                                     {"sink_logits": [1.0, 2.0]}, {"bias": np.zeros(LK)}], ids=str)
def test_nan_in_a_query_spoils_its_row_only(options, dtype):
    rng = np.random.default_rng(5)
    q, k, v = draw(rng, (2, LQ, 16), dtype), draw(rng, (2, LK, 16), dtype), draw(rng, (2, LK, 16), dtype)
    clean = everything(q, k, v, **options)
    row = 40
    q[1, row, 2] = np.nan
    found = everything(q, k, v, **options)
    sees = clean["weights"][1, row] > 0
    sees = np.isfinite(clean["logits"][1, row]) if not sees.all() else sees
    for name, x in found.items():
        y = clean[name]
        assert_equal_bytes(x[0], y[0], name)
        kind = name.split()[-1]
        if name.startswith("columns"):
            if kind == "visible":
                assert_equal_bytes(x, y, name)
            else:
                assert np.isnan(x[1, sees]).all() and np.array_equal(x[1, ~sees], y[1, ~sees]), name
        elif name == "blocks":
            hit = np.add.reduceat(sees, np.arange(0, LK, 50)) > 0
            assert np.isnan(x[1, row // 7, hit]).all() and np.array_equal(x[1, row // 7, ~hit], y[1, row // 7, ~hit])
            others = np.arange(x.shape[1]) != row // 7
            assert_equal_bytes(x[1, others], y[1, others], name)
        else:
            others = np.arange(LQ) != row
            assert_equal_bytes(x[1, others], y[1, others], name)
            mine = x[1, row]
            if kind in ("argmax", "topk_index"):
                assert (mine == -1).all(), name
            elif kind == "n_allowed" or (kind == "sink_logit_mass" and "sink_logits" not in options):
                assert (mine == y[1, row]).all(), name
            elif kind in ("weights", "logits"):
                assert np.array_equal(np.isnan(mine), sees), name
                assert (mine[~sees] == (0 if kind == "weights" else -np.inf)).all(), name
            else:
                assert np.isnan(mine.astype(np.float64)).all(), name


def test_there_is_one_nan_and_no_negative_zero():
    patterns = {"float16": 0x7E00, "bfloat16": 0x7FC0, "float32": 0x7FC00000, "float64": 0x7FF8000000000000}
    for dtype, pattern in patterns.items():
        bits = np.dtype(f"u{cases.dtype_of(dtype).itemsize}")
        q, k = np.full((3, 2), 1.0), np.ones((4, 2))
        v = np.full((4, 3), -0.0)
        with np.errstate(all="ignore"):
            q, k, v = (x.astype(cases.dtype_of(dtype)) for x in (q, k, v))
        q[1] = -np.array(np.nan, q.dtype)
        found = everything(q, k, v)
        assert (found["out"].view(bits)[1] == pattern).all() and (found["out"].view(bits)[[0, 2]] == 0).all()
        for name, x in found.items():
            nan = x[np.isnan(x.astype(np.float64))]
            own = patterns[x.dtype.name] if x.dtype.kind != "i" else 0
            assert (nan.view(f"u{x.itemsize}") == own).all(), name


# ---- infinite logits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_infinite_logits_share_the_row(dtype):
    q = np.ones((2, 1), dtype)
    k = np.linspace(-2, 2, 600).astype(dtype)[:, None]
    v = np.arange(600.0).astype(dtype)[:, None]
    plus, minus = [5, 300, 599], [0, 7, 256]
    k[plus], k[minus] = np.inf, -np.inf
    found = everything(q, k, v, scale=1.0)
    share = np.zeros(600)
    share[plus] = 1 / 3
    np.testing.assert_allclose(found["weights"], np.broadcast_to(share, (2, 600)), rtol=1e-6)
    np.testing.assert_allclose(found["out"], (5 + 300 + 599) / 3, rtol=1e-6)
    assert (found["out lse"] == np.inf).all() and (found["stats argmax"] == 5).all()
    np.testing.assert_allclose(found["stats entropy"], np.log(3), rtol=1e-6)
    np.testing.assert_allclose(found["stats purity"], 1 / 3, rtol=1e-6)
    assert (found["stats mean_logit"] == np.inf).all()
    assert np.array_equal(found["rows topk_index"][:, :3], [plus, plus])
    np.testing.assert_allclose(found["columns received"], 2 * share, rtol=1e-6)
    np.testing.assert_allclose(found["blocks"].sum(), 2, rtol=1e-6)


SPECIAL = [np.inf, -np.inf, np.nan, 0.0, 1.0, -1.0, 3e38, -3e38, 1e-45, 80.0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_special_logits_and_sinks_against_the_twin(dtype):
    """Logits and sink logits drawn from the special numbers, one feature, values that are finite."""
    rng = np.random.default_rng(6)
    special_numbers = [x for x in SPECIAL if dtype == "float64" or x != 1e-45]
    for _ in range(60):
        lk = int(rng.integers(1, 7))
        q = np.ones((4, 1), dtype)
        special = [x for x in special_numbers if not np.isnan(x)] if rng.random() < 0.7 else special_numbers
        k, v = rng.choice(special, (lk, 1)).astype(dtype), rng.standard_normal((lk, 2)).astype(dtype)
        options = {"scale": 1.0, "causal": bool(rng.random() < 0.5), "q_offset": 1}
        if rng.random() < 0.6:
            options["sink_logits"] = rng.choice([x / 2 if abs(x) > 1e38 else x for x in special], 4)
        got = attnkit.softmax_attention(q, k, v, return_lse=True, return_weights=True, stats=STATS, **options)
        want = attnkit.reference.softmax_attention(q, k, v, return_lse=True, return_weights=True, stats=STATS, **options)
        if (k == -np.inf).any():  # allowed all the same: only masks and bias forbid; the twin cannot tell
            del got[3]["n_allowed"], want[3]["n_allowed"]
            if np.isnan(k).any() or np.isnan(options.get("sink_logits", 0.0)).any():
                continue
        flat = [dict(zip(("out", "lse", "weights"), x[:3])) | x[3] for x in (got, want)]
        for name, y in flat[1].items():
            np.testing.assert_allclose(flat[0][name], y, rtol=1e-5, atol=1e-6, err_msg=f"{name} of {k.ravel()} {options}")


def test_minus_infinity_in_the_bias_of_an_infinite_key():
    """-inf forbids even a key whose logit is +inf."""
    k = np.array([[np.inf], [0.0], [1.0]], np.float32)
    found = everything(np.ones((1, 1), np.float32), k, np.array([[np.nan], [2.0], [4.0]], np.float32), scale=1.0, bias=np.array([-np.inf, 0.0, 0.0]))
    np.testing.assert_allclose(found["weights"], [[0.0, 1 / (1 + np.e), np.e / (1 + np.e)]], rtol=1e-6)
    assert found["stats n_allowed"] == 2


def test_weights_of_rows_that_see_nothing_do_not_matter():
    """A NaN or infinite row weight reaches the keys that its row may see, and no others."""
    q = k = np.eye(4, dtype=np.float32)
    w = np.array([1.0, 1.0, 1.0, np.nan])
    found = attnkit.attention_column_stats(q[:, :], k, mask=masks.window(0, offset=0), row_weights=w)
    assert np.array_equal(found["received"], [1, 1, 1, np.nan], equal_nan=True)


# ---- extents beyond 2^31 ---------------------------------------------------------------------------------------------

BIG = 2**31 + 4096 + 300  # ends in a partial tile of a partial chunk


def repeated(shape, dtype=np.float32, value=1.0):
    """`value` in every element, in the memory of one."""
    return np.broadcast_to(np.array(value, dtype), shape)


@pytest.mark.parametrize("extra", ["nothing", "bias", "mask"])
def test_keys_values_bias_and_masks_beyond_2_31(extra):
    """The last keys of 2^31, reached through a window; the only finite ones among NaN."""
    options = {"bias": {"bias": repeated((1, BIG), value=0.5)}, "mask": {"mask": repeated((1, BIG), bool, True)}}.get(extra, {})
    k, v = repeated((BIG, 1)), repeated((BIG, 1), value=3.0)
    out, lse, stats = attnkit.softmax_attention(repeated((1, 1)), k, v, scale=1.0, window=(4999, 0), return_lse=True,
                                                stats=("n_allowed", "argmax", "distance"), **options)
    assert out == 3 and stats["n_allowed"] == 5000 and stats["argmax"] == BIG - 5000 and stats["distance"] == 2499.5
    np.testing.assert_allclose(lse, 1 + np.log(5000) + (0.5 if extra == "bias" else 0), rtol=1e-6)
    weights = attnkit.attention_weights(repeated((1, 1)), k, scale=1.0, window=(4999, 0), cols=[BIG - 1, BIG - 5000, BIG - 5001, 0], **options)
    np.testing.assert_allclose(weights, [[1 / 5000, 1 / 5000, 0, 0]], rtol=1e-6)


def test_queries_beyond_2_31_elements():
    row = np.ones(2**17, np.float32)
    q = np.broadcast_to(row, (2**14 + 1, 2**17))
    assert q.size > 2**31
    out, lse = attnkit.softmax_attention(q, row[None], repeated((1, 1), value=2.0), return_lse=True)
    assert out.shape == (2**14 + 1, 1) and (out == 2).all()
    np.testing.assert_allclose(lse, 2**8.5, rtol=2**17 * 2.0**-24)  # 2^17 equal products: the proved bound, not the usual one


def test_heads_beyond_2_31_elements():
    row = np.ones(1024, np.float32)
    q = np.broadcast_to(row, (2**21 + 1, 1, 1024))
    lse = attnkit.attention_row_stats(q, row[None])["lse"]
    assert lse.shape == (2**21 + 1, 1)
    np.testing.assert_allclose(lse, 32, rtol=2**10 * 2.0**-24)
    k = np.broadcast_to(np.arange(700.0)[:, None], (2**22, 700, 1))
    assert k.size > 2**31
    weights = attnkit.attention_weights(np.ones((2**22, 1, 1)), k, heads=-1, cols=[699, 698])
    np.testing.assert_allclose(weights[0, 0], [1 - 1 / np.e, (1 - 1 / np.e) / np.e], rtol=1e-9)


# ---- arrays of any make ----------------------------------------------------------------------------------------------


@st.composite
def layouts(draw_, shape, dtype, rng):
    """An array with these contents and any strides, alignment, byte order and flags; and a plain copy of it."""
    values = rng.standard_normal(shape)
    with np.errstate(all="ignore"):
        plain = (values > 0 if dtype == "bool" else np.round(2 * values) if np.dtype(cases.dtype_of(dtype)).kind == "i" else values)
        plain = plain.astype(cases.dtype_of(dtype))
    kind = draw_(st.sampled_from(["plain", "fortran", "strided", "negative", "misaligned", "swapped", "zero strides", "read-only", "list"]))
    x = plain
    if kind == "fortran":
        x = np.asfortranarray(plain)
    elif kind == "strided":
        x = np.zeros([2 * n + 1 for n in shape], plain.dtype)[tuple(slice(1, None, 2) for _ in shape)]
        x[...] = plain
    elif kind == "negative":
        back = (slice(None, None, -1),) * plain.ndim
        x = np.ascontiguousarray(plain[back])[back]
    elif kind == "misaligned" and plain.size:
        x = np.zeros(plain.nbytes + 1, np.uint8)[1:].view(plain.dtype).reshape(shape)
        x[...] = plain
    elif kind == "swapped" and plain.dtype.name != "bfloat16":
        x = plain.astype(plain.dtype.newbyteorder())
    elif kind == "zero strides" and plain.size:
        axis = draw_(st.integers(0, plain.ndim - 1))
        x = np.broadcast_to(plain.take([0], axis), shape)
        plain = x.copy()
    elif kind == "read-only":
        x = plain.copy()
        x.flags.writeable = False
    elif kind == "list" and plain.size and dtype == "float64":
        x = plain.tolist()
    return x, plain


@settings(max_examples=int(150 * SCALE))
@given(st.data())
def test_any_arrays_and_options(data):
    """Bytes equal those of plain copies; values are the twin's."""
    choose = data.draw
    rng = np.random.default_rng(choose(st.integers(0, 2**32 - 1)))
    lq, lk, d, dv = (choose(st.sampled_from(sizes)) for sizes in ([0, 1, 2, 7, 50], [0, 1, 5, 40, 300], [1, 3, 16, 24], [1, 5, 16]))
    lead_q, lead_k = choose(st.sampled_from([((), ()), ((2,), (2,)), ((4,), (2,)), ((3, 2), (2,)), ((1, 2), (3, 1)), ((), (3,)), ((2, 4), (1, 2)), ((0,), (1,))]))
    names = choose(st.sampled_from([*FLOAT_DTYPES, "int16", "bool", "float32/float64/float32", "float16/float32/float16"])).split("/")
    pairs = [choose(layouts((*lead, *tail), names[min(i, len(names) - 1)], rng))
             for i, (lead, tail) in enumerate([(lead_q, (lq, d)), (lead_k, (lk, d)), (lead_k, (lk, dv))])]
    options = {}
    if choose(st.booleans()):
        options["causal"] = choose(st.sampled_from([True, "lower_right", "upper_left"]))
    if choose(st.booleans()):
        options["window"] = (choose(st.sampled_from([None, -1, 0, 3, 100])), choose(st.sampled_from([None, 0, 2, 50])))
    if choose(st.booleans()):
        options["q_offset"] = choose(st.integers(-60, 350))
    if choose(st.booleans()):
        options["softcap"] = choose(st.sampled_from([0.5, 5.0, None]))
    if choose(st.booleans()):
        options["scale"] = choose(st.sampled_from([0.3, 1, -2.0]))
    map_shape = choose(st.sampled_from([(lq, lk), (1, lk), (lq, 1), (lk,), (*lead_q, lq, lk)]))
    plain_options = dict(options)
    if choose(st.booleans()):
        options["mask"], plain_options["mask"] = choose(layouts(map_shape, "bool", rng))
    if choose(st.booleans()):
        options["bias"], plain_options["bias"] = choose(layouts(map_shape, choose(st.sampled_from(["float32", "float64", "float16"])), rng))
    if choose(st.booleans()):
        options["sink_logits"], plain_options["sink_logits"] = choose(layouts((lq,), "float32", rng))
    args, plain = [x for x, _ in pairs], [x for _, x in pairs]
    wanted = {"return_lse": True, "stats": STATS}
    case = cases.Case("drawn", "softmax_attention", ())
    got = attnkit.softmax_attention(*args, **options, **wanted)
    again = attnkit.softmax_attention(*plain, **plain_options, **wanted)
    for (name, x), (_, y) in zip(cases.named_results("softmax_attention", got, wanted), cases.named_results("softmax_attention", again, wanted)):
        assert_equal_bytes(x, y, name)
    with np.errstate(all="ignore"):
        case.check(again, tuple(plain), {**plain_options, **wanted}, equal_terms=True)  # zero strides repeat
