"""Every exact function against its float64 twin: values, order, shapes, dtypes; and what both refuse."""

import inspect
import re
import zlib

import cases
import numpy as np
import pytest

import attnkit
import attnkit.reference

ROWS = [pytest.param(case, dtype, id=f"{case.name} [{dtype}]") for case in cases.CASES for dtype in case.dtypes]


def rng_of(*words):
    """Random numbers that depend on the words alone."""
    return np.random.default_rng(zlib.crc32(" ".join(words).encode()))


@pytest.mark.parametrize("case, dtype", ROWS)
def test_against_the_twin(case, dtype):
    args, kwargs = case.make_inputs(rng_of(case.name, dtype), dtype)
    case.check(case.run(args, kwargs), args, kwargs)


def test_every_function_has_rows():
    """Every function of arrays q, k in attnkit.exact is compared; states have their own tests, as have masks and papers."""
    elsewhere = {
        *("AttentionState", "attention_state", "merge_states"),  # test_states_engine.py
        *("row_state_init", "row_state_update", "row_state_merge", "row_state_finish"),  # test_row_states.py
        *("causal_mask", "sliding_window_mask", "document_mask", "block_mask_to_dense", "block_mask_to_csr", "mask_tile_stats", "receptive_field"),
        *("receptive_depth", "butterfly_block_mask", "flash_attention_tiled", "flash_block_sizes", "flash_traffic", "attention_cascade"),
        "cascade_counts",
    }
    assert {case.function for case in cases.CASES} | elsewhere == set(attnkit.exact.__all__)
    assert len({case.name for case in cases.CASES}) == len(cases.CASES)


def test_signatures_agree():
    """Same names, order, kinds and defaults; `out` is the engine's alone."""
    for name in {case.function for case in cases.CASES}:
        ours, twins = (dict(inspect.signature(getattr(module, name)).parameters) for module in (attnkit, attnkit.reference))
        ours.pop("out", None)
        assert {n: (p.kind, p.default) for n, p in ours.items()} == {n: (p.kind, p.default) for n, p in twins.items()}, name


# ---- what both refuse ------------------------------------------------------------------------------------------------

Q, K, V = np.ones((2, 5, 3)), np.ones((2, 9, 3)), np.ones((2, 9, 4))
MASKED = np.ma.masked_array(K, K > 2)
QKV = {"q": Q, "k": K, "v": V}

# (exception, word of the message, what to change in a good call)
SHARED = [
    (ValueError, "q", {"q": Q[..., :2]}),
    (ValueError, "k", {"k": K[..., :2]}),
    (ValueError, "k", {"k": np.ones((3, 9, 3))}),
    (ValueError, "q", {"q": Q[0, 0]}),
    (ValueError, "k", {"k": np.ones(3)}),
    (TypeError, "q", {"q": Q.astype(complex)}),
    (TypeError, "k", {"k": K.astype(object)}),
    (TypeError, "k", {"k": MASKED}),
    (TypeError, "q", {"q": np.full(Q.shape, "a")}),
    (TypeError, "float16", {"q": Q.astype(np.float16), "k": K.astype(cases.dtype_of("bfloat16"))}),
    (TypeError, "scale", {"scale": "big"}),
    (TypeError, "scale", {"scale": True}),
    (ValueError, "scale", {"scale": np.nan}),
    (ValueError, "scale", {"scale": np.inf}),
    (TypeError, "causal", {"causal": 1}),
    (ValueError, "causal", {"causal": "left"}),
    (TypeError, "mask", {"mask": np.ones((5, 9))}),
    (TypeError, "bias", {"mask": np.zeros((5, 9), np.float32)}),
    (ValueError, "mask", {"mask": np.full((5, 9), 2)}),
    (ValueError, "mask", {"mask": np.ones((5, 8), bool)}),
    (ValueError, "mask", {"mask": np.ones((3, 5, 9), bool)}),
    (TypeError, "mask", {"mask": np.ma.masked_array(np.ones((5, 9), bool))}),
    (ValueError, "bias", {"bias": np.ones((4, 9))}),
    (ValueError, "bias", {"bias": np.ones((7, 2, 5, 9))}),
    (TypeError, "bias", {"bias": np.ones((5, 9), complex)}),
    (TypeError, "window", {"window": 3}),
    (TypeError, "window", {"window": "ab"}),
    (TypeError, "window", {"window": (1.5, 0)}),
    (TypeError, "window", {"window": (True, 0)}),
    (ValueError, "window", {"window": (1, 2, 3)}),
    (ValueError, "alibi_slopes", {"alibi_slopes": [1.0, 2.0, 3.0]}),
    (TypeError, "alibi_slopes", {"alibi_slopes": ["a"]}),
    (TypeError, "softcap", {"softcap": "5"}),
    (ValueError, "softcap", {"softcap": -1.0}),
    (ValueError, "softcap", {"softcap": np.nan}),
    (TypeError, "q_offset", {"q_offset": 1.0}),
    (TypeError, "q_offset", {"q_offset": True}),
]
SINK = [(ValueError, "sink_logits", {"sink_logits": np.ones(3)}), (TypeError, "sink_logits", {"sink_logits": ["a", "b"]}),
        (ValueError, "sink_logits", {"sink_logits": np.ones((2, 6))})]
LSE = [(ValueError, "lse", {"lse": np.ones(4)}), (TypeError, "lse", {"lse": np.ones((2, 5), complex)})]
VALUES = [(ValueError, "v", {"v": V[:, :8]}), (ValueError, "v", {"v": np.ones((3, 9, 4))}), (ValueError, "v", {"v": np.ones(4)}),
          (TypeError, "v", {"v": V.astype(object)})]
FORWARD = [
    (TypeError, "dropout_p", {"dropout_p": "0.5"}), (ValueError, "dropout_p", {"dropout_p": 1.0, "dropout_mask": True}),
    (ValueError, "dropout_p", {"dropout_p": -0.1, "dropout_mask": True}), (ValueError, "dropout_mask", {"dropout_p": 0.5}),
    (TypeError, "dropout_mask", {"dropout_mask": np.ones((5, 9)), "dropout_p": 0.1}), (ValueError, "dropout_mask", {"dropout_mask": np.ones((5, 8), bool), "dropout_p": 0.1}),
    (ValueError, "stats", {"stats": ("entropie",)}), (TypeError, "stats", {"stats": 3}),
    (TypeError, "return_lse", {"return_lse": 1}), (TypeError, "return_lse", {"return_lse": None}), (TypeError, "return_weights", {"return_weights": "yes"}),
]
PACKED = {"cu_seqlens_q": [0, 2, 5], "cu_seqlens_k": [0, 9, 9]}
PAGES = {"q": np.ones((2, 4, 1, 3)), "k_pages": np.ones((5, 2, 4, 3)), "v_pages": np.ones((5, 2, 4, 6)), "page_table": [[0, 1], [4, 3]], "seq_lens": [8, 3]}
SUBSET = [row for row in SHARED if not {"mask", "bias", "q_offset"} & set(row[2])]
BAD = {
    "softmax_attention": (QKV, SHARED + SINK + VALUES + FORWARD),
    "attention_logits": ({"q": Q, "k": K}, SHARED),
    "attention_weights": ({"q": Q, "k": K}, SHARED + SINK + LSE + [
        (ValueError, "rows", {"rows": 5}), (ValueError, "cols", {"cols": [0, -10]}), (ValueError, "heads", {"heads": 2}), (TypeError, "rows", {"rows": 1.0}),
        (ValueError, "rows", {"rows": np.ones(4, bool)}), (ValueError, "cols", {"cols": [[1]]}), (ValueError, "heads", {"q": Q[0], "k": K[0], "heads": 0})]),
    "attention_row_stats": ({"q": Q, "k": K}, SHARED + SINK + [
        (TypeError, "topk", {"topk": 1.5}), (ValueError, "topk", {"topk": -1}), (ValueError, "sink_size", {"sink_size": -1}), (ValueError, "groups", {"groups": [1, 2]}),
        (TypeError, "groups", {"groups": np.ones(9)}), (ValueError, "n_groups", {"n_groups": 3}), (ValueError, "n_groups", {"groups": [0] * 9, "n_groups": -1}),
        (ValueError, "extra", {"extra": ("lse",)})]),
    "attention_column_stats": ({"q": Q, "k": K}, SHARED + SINK + LSE + [
        (ValueError, "rows", {"rows": [5]}), (ValueError, "row_weights", {"row_weights": np.ones(4)}), (TypeError, "row_weights", {"row_weights": ["a"] * 5})]),
    "attention_block_mass": ({"q": Q, "k": K, "block_q": 2, "block_k": 2}, SHARED + SINK + LSE + [
        (ValueError, "block_q", {"block_q": 0}), (TypeError, "block_k", {"block_k": 2.0}), (ValueError, "reduce", {"reduce": "median"})]),
    "block_sparse_attention": ({**QKV, "block_mask": np.ones((2, 3), bool), "block_q": 3, "block_k": 4}, SHARED + VALUES + [
        (ValueError, "block_q", {"block_q": 0}), (TypeError, "block_k", {"block_k": 4.0}), (TypeError, "block_mask", {"block_mask": np.ones((2, 3))}),
        (ValueError, "block_mask", {"block_mask": np.full((2, 3), 2)}), (ValueError, "(2, 4)", {"block_mask": np.ones((2, 4), bool)})]),
    "varlen_attention": ({**QKV, **PACKED}, SUBSET + SINK[:2] + VALUES + [
        (ValueError, "cu_seqlens_q", {"cu_seqlens_q": [0, 2, 6]}), (ValueError, "cu_seqlens_k", {"cu_seqlens_k": [1, 9, 9]}),
        (ValueError, "cu_seqlens_q", {"cu_seqlens_q": [0, 3, 2, 5], "cu_seqlens_k": [0, 1, 2, 9]}), (ValueError, "cu_seqlens_q", {"cu_seqlens_q": [0, 5]}),
        (TypeError, "cu_seqlens_k", {"cu_seqlens_k": [0.0, 9.0, 9.0]}), (ValueError, "cu_seqlens_q", {"cu_seqlens_q": [[0, 5]]})]),
    "paged_attention": (PAGES, [
        (ValueError, "q", {"q": Q}), (ValueError, "k_pages", {"k_pages": K}), (ValueError, "v_pages", {"v_pages": np.ones((5, 2, 3, 6))}),
        (ValueError, "page_table", {"page_table": [[0, 1]]}), (ValueError, "page_table", {"page_table": [[0, 5], [0, 0]]}), (TypeError, "page_table", {"page_table": [[0.5, 1], [1, 2]]}),
        (ValueError, "page_table", {"page_table": [[-1, 1], [0, 0]]}), (ValueError, "seq_lens", {"seq_lens": [8]}), (ValueError, "seq_lens", {"seq_lens": [9, 1]}),
        (ValueError, "seq_lens", {"seq_lens": [-1, 1]}), (TypeError, "seq_lens", {"seq_lens": [1.0, 2.0]}), (TypeError, "causal", {"causal": 1}), (TypeError, "window", {"window": 1}),
        (TypeError, "q", {"q": np.ones((2, 4, 1, 3), complex)})]),
    "merge_partials": ({"outs": np.ones((3, 5, 2)), "lses": np.ones((3, 5))}, [
        (ValueError, "outs", {"outs": np.ones((3, 4, 2))}), (ValueError, "axis", {"axis": 2}), (TypeError, "axis", {"axis": 0.0}), (TypeError, "lses", {"lses": np.ones((3, 5), complex)}),
        (ValueError, "outs", {"outs": [np.ones((5, 2)), np.ones((4, 2))]})]),
}
REFUSED = [pytest.param(name, good, *row, id=f"{name} {row[0].__name__} {i} {'+'.join(row[2])}") for name, (good, rows) in BAD.items() for i, row in enumerate(rows)]


@pytest.mark.parametrize("name, good, error, word, change", REFUSED)
def test_both_refuse(name, good, error, word, change):
    """The same kind of error, and its message names the argument."""
    for module in (attnkit, attnkit.reference):
        function = getattr(module, name)
        function(**good)
        with pytest.raises(error) as caught:
            function(**{**good, **change})
        assert type(caught.value) is error
        assert re.search(rf"(?<!\w){re.escape(word)}(?!\w)", str(caught.value)), f"{module.__name__}: {caught.value}"
