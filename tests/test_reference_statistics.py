"""The twins of row, column and block statistics against definitions, closed forms and identities."""

import math
from decimal import Decimal, getcontext

import numpy as np
import pytest

from attnkit import reference as ref

INF, NAN = np.inf, np.nan


def case(seed, *, lq=5, lk=9, lead=(2, 3), d=4):
    rng = np.random.default_rng(seed)
    q, k = rng.standard_normal(lead + (lq, d)), rng.standard_normal(lead + (lk, d))
    mask = rng.random((lq, lk)) < 0.7
    mask[1] = False
    return q, k, mask, rng


@pytest.mark.parametrize("sink", [None, np.array([0.5, -1.0, 2.0])])
def test_row_statistics_equal_their_definitions(sink):
    q, k, mask, rng = case(0)
    groups, bias = rng.integers(0, 3, 9), rng.standard_normal((5, 9)).round()
    options = {"mask": mask, "bias": bias, "q_offset": 1}
    got = ref.attention_row_stats(q, k, topk=4, sink_size=2, groups=groups, n_groups=3, sink_logits=sink, **options)
    s = ref.attention_logits(q, k, **options)
    for row in np.ndindex(got["lse"].shape):
        a = -INF if sink is None else sink[row[1]]
        x = {j: s[row][j] for j in range(9) if s[row][j] > -INF}
        total = math.fsum(math.exp(v) for v in x.values()) + math.exp(a)
        if not x and a == -INF:
            for name, value in got.items():
                want = {"lse": -INF, "argmax": -1, "topk_index": -1}.get(name, 0)
                assert (value[row] == want).all(), name
            continue
        p = {j: math.exp(v) / total for j, v in x.items()}
        p_sink = math.exp(a) / total
        every = [w for w in [*p.values(), p_sink] if w > 0]
        delta = {j: row[-1] + 1 - j for j in x}
        order = sorted(x, key=lambda j: (-x[j], j))
        want = {
            "lse": math.log(total),
            "n_allowed": len(x),
            "entropy": -math.fsum(w * math.log(w) for w in every),
            "purity": math.fsum(w * w for w in every),
            "max_weight": max(p.values(), default=0),
            "argmax": order[0] if order else -1,
            "sink_mass": math.fsum(w for j, w in p.items() if j < 2),
            "sink_logit_mass": p_sink,
            "distance": math.fsum(w * delta[j] for j, w in p.items()),
            "distance_sq": math.fsum(w * delta[j] ** 2 for j, w in p.items()),
            "mean_logit": math.fsum(w * x[j] for j, w in p.items()),
            "group_mass": [math.fsum(w for j, w in p.items() if groups[j] == g) for g in range(3)],
            "topk_index": (order + [-1] * 4)[:4],
            "topk_weight": ([p[j] for j in order] + [0] * 4)[:4],
        }
        assert set(want) == set(got)
        for name, value in want.items():
            np.testing.assert_allclose(got[name][row], value, rtol=1e-12, atol=1e-13, err_msg=name)
    assert all(got[n].dtype == np.int64 for n in ("n_allowed", "argmax", "topk_index"))


def test_uniform_logits_and_identities():
    q, k = np.zeros((4, 2)), np.zeros((7, 2))
    st = ref.attention_row_stats(q, k, topk=3, groups=[0, 0, 1, 1, 1, 2, 2])
    np.testing.assert_allclose(st["entropy"], math.log(7), rtol=1e-15)
    np.testing.assert_allclose(st["purity"], 1 / 7, rtol=1e-15)
    np.testing.assert_allclose(st["group_mass"], np.tile([2 / 7, 3 / 7, 2 / 7], (4, 1)), rtol=1e-15)
    assert (st["topk_index"] == [0, 1, 2]).all() and (st["argmax"] == 0).all()
    q, k, mask, _ = case(1)
    st = ref.attention_row_stats(q, k, mask=mask, groups=np.arange(9) % 2)
    some = mask.any(-1)
    np.testing.assert_allclose(st["entropy"][..., some], (st["lse"] - st["mean_logit"])[..., some], rtol=1e-12)
    np.testing.assert_allclose(st["group_mass"].sum(-1)[..., some], 1, rtol=1e-14)


def test_entropy_of_peaked_rows_keeps_its_digits():
    getcontext().prec = 300
    for gap in (20.0, 70.0, 300.0):
        logits = [1000.0, 1000.0 - gap, 1000.0 - gap - 1]
        e = [(Decimal(x) - Decimal(1000)).exp() for x in logits]
        total = sum(e)
        want = float(-sum(x / total * (x / total).ln() for x in e))
        got = ref.attention_row_stats(np.ones((1, 1)), np.array(logits)[:, None])["entropy"][0]
        assert abs(got - want) <= 1e-13 * want


def test_limits_of_row_statistics():
    q, k = np.ones((3, 1)), np.zeros((4, 1))
    bias = np.array([[1.0, INF, 0.0, INF], [NAN, 1, 2, 3], [-INF] * 4])
    st = ref.attention_row_stats(q, k, bias=bias, topk=3, groups=[0, 1, 0, 1], q_offset=0)
    row = {n: v[0] for n, v in st.items()}
    assert row["lse"] == INF and row["mean_logit"] == INF and row["max_weight"] == 0.5 and row["argmax"] == 1
    assert row["purity"] == 0.5 and row["distance"] == -2 and row["distance_sq"] == 5
    np.testing.assert_allclose(row["entropy"], math.log(2), rtol=1e-15)
    assert row["topk_index"].tolist() == [1, 3, 0] and row["topk_weight"].tolist() == [0.5, 0.5, 0]
    for name, value in st.items():
        if name == "n_allowed":
            assert value.tolist() == [4, 4, 0]
        elif name in ("argmax", "topk_index"):
            assert (value[1:] == -1).all()
        elif name == "sink_logit_mass":
            assert not value.any()
        else:
            assert np.isnan(value[1]).all(), name
    alone = ref.attention_row_stats(q[2:], k, bias=bias[2:], sink_logits=0.25)
    assert alone["lse"] == 0.25 and alone["sink_logit_mass"] == 1 and alone["purity"] == 1 and alone["entropy"] == 0


def test_statistics_in_the_forward_pass():
    q, k, mask, _ = case(2)
    names = ("distance", "n_allowed", "sink_mass")
    out, lse, stats = ref.softmax_attention(q, k, k, mask=mask, return_lse=True, stats=names)
    every = ref.attention_row_stats(q, k, mask=mask)
    assert tuple(stats) == names and out.shape == q.shape
    for name in names:
        np.testing.assert_array_equal(stats[name], every[name])
    np.testing.assert_array_equal(lse, every["lse"])


def test_column_statistics():
    q, k, mask, rng = case(3)
    p = ref.attention_weights(q, k, mask=mask)
    st = ref.attention_column_stats(q, k, mask=mask)
    np.testing.assert_allclose(st["received"], p.sum(-2), rtol=1e-13)
    np.testing.assert_allclose(st["received"].sum(-1), mask.any(-1).sum(), rtol=1e-13)
    np.testing.assert_array_equal(st["received_max"], p.max(-2))
    np.testing.assert_array_equal(st["visible"], np.broadcast_to(mask.sum(0), (2, 3, 9)))
    w = rng.random(5)
    st = ref.attention_column_stats(q, k, mask=mask, rows=[4, 0, 4], row_weights=w)
    np.testing.assert_allclose(st["received"], w[4] * 2 * p[..., 4, :] + w[0] * p[..., 0, :], rtol=1e-12)
    visible = 2 * mask[4] + mask[0] * 1
    np.testing.assert_allclose(st["received_mean"], st["received"] / np.maximum(visible, 1), rtol=1e-12)
    none = ref.attention_column_stats(q, k, rows=slice(0, 0))
    assert not none["received"].any() and not none["received_max"].any() and none["visible"].dtype == np.int64


def test_key_shards_with_the_shared_lse_concatenate():
    q, k, mask, _ = case(4)
    lse = ref.attention_row_stats(q, k, mask=mask)["lse"]
    whole = ref.attention_column_stats(q, k, mask=mask)
    parts = [ref.attention_column_stats(q, k[..., a, :], mask=mask[:, a], lse=lse) for a in (slice(0, 4), slice(4, 9))]
    for name in whole:
        np.testing.assert_allclose(np.concatenate([x[name] for x in parts], -1), whole[name], rtol=1e-12)
    mass = ref.attention_block_mass(q, k, block_q=2, block_k=4, mask=mask)
    parts = [ref.attention_block_mass(q, k[..., a, :], block_q=2, block_k=4, mask=mask[:, a], lse=lse)
             for a in (slice(0, 4), slice(4, 9))]
    np.testing.assert_allclose(np.concatenate(parts, -1), mass, rtol=1e-12)


def test_nan_row_reaches_only_the_columns_it_sees():
    q, k, mask, _ = case(5, lead=())
    q[3] = NAN
    st = ref.attention_column_stats(q, k, mask=mask)
    assert (np.isnan(st["received"]) == mask[3]).all() and (np.isnan(st["received_max"]) == mask[3]).all()


def test_block_mass():
    q, k, mask, _ = case(6)
    p = ref.attention_weights(q, k, mask=mask)
    got = {r: ref.attention_block_mass(q, k, block_q=2, block_k=4, reduce=r, mask=mask)
           for r in ("sum", "max", "mean", "row_mean")}
    padded = np.zeros((2, 3, 6, 12))
    padded[..., :5, :9] = p
    blocks = padded.reshape(2, 3, 3, 2, 3, 4).swapaxes(-3, -2)
    np.testing.assert_allclose(got["sum"], blocks.sum((-1, -2)), rtol=1e-13)
    np.testing.assert_array_equal(got["max"], blocks.max((-1, -2)))
    np.testing.assert_allclose(got["mean"], blocks.mean((-1, -2)), rtol=1e-13)
    np.testing.assert_allclose(got["row_mean"] * np.array([[2], [2], [1]]), got["sum"], rtol=1e-13)
    np.testing.assert_allclose(got["sum"].sum((-1, -2)), mask.any(-1).sum(), rtol=1e-13)
    whole = ref.attention_block_mass(q, k, block_q=3, block_k=2, reduce="row_mean")
    np.testing.assert_allclose(whole.sum(-1), 1, rtol=1e-13)


@pytest.mark.parametrize("kind, word, call", [
    (TypeError, "topk", lambda q: ref.attention_row_stats(q, q, topk=1.0)),
    (ValueError, "sink_size", lambda q: ref.attention_row_stats(q, q, sink_size=-1)),
    (ValueError, "groups", lambda q: ref.attention_row_stats(q, q, groups=[0])),
    (TypeError, "groups", lambda q: ref.attention_row_stats(q, q, groups=np.zeros(3))),
    (ValueError, "n_groups", lambda q: ref.attention_row_stats(q, q, n_groups=2)),
    (ValueError, "row_weights", lambda q: ref.attention_column_stats(q, q, row_weights=np.ones(2))),
    (ValueError, "lse", lambda q: ref.attention_column_stats(q, q, lse=np.ones(2))),
    (ValueError, "reduce", lambda q: ref.attention_block_mass(q, q, block_q=1, block_k=1, reduce="avg")),
    (ValueError, "block_q", lambda q: ref.attention_block_mass(q, q, block_q=0, block_k=1)),
])
def test_bad_arguments(kind, word, call):
    with pytest.raises(kind, match=word):
        call(np.zeros((3, 2)))
