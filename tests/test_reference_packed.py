"""The twins of the packed, paged and block-sparse forms against one plain call."""

import numpy as np
import pytest

from attnkit import reference as ref

INF = np.inf


def test_varlen_is_a_block_diagonal_mask():
    rng = np.random.default_rng(0)
    q, k, v = rng.standard_normal((4, 9, 3)), rng.standard_normal((2, 11, 3)), rng.standard_normal((2, 11, 5))
    cu_q, cu_k = [0, 4, 4, 9], [0, 3, 5, 11]
    seg_q, seg_k = np.repeat([0, 2], [4, 5]), np.repeat([0, 1, 2], [3, 2, 6])
    for causal in (False, True):
        mask = ref.document_mask(seg_q, seg_k)
        if causal:      # lower right within each document
            mask &= np.concatenate([np.arange(4) - 1, 5 + np.arange(5) + 1])[:, None] >= np.arange(11)
        a = np.array([0.1, -0.2, 0.3, 0.4])
        options = {"softcap": 2.0, "scale": 0.4, "sink_logits": a}
        want = ref.softmax_attention(q, k, v, mask=mask, return_lse=True, **options)
        got = ref.varlen_attention(q, k, v, cu_q, cu_k, causal=causal, return_lse=True, **options)
        for w, g in zip(want, got):
            np.testing.assert_allclose(g, w, rtol=1e-12, atol=1e-14)
    # positions start anew in every document
    out = ref.varlen_attention(q, k, v, cu_q, cu_k, window=(1, 0), alibi_slopes=np.arange(4.0))
    np.testing.assert_array_equal(out[:, 4:], ref.softmax_attention(
        q[:, 4:], k[:, 5:], v[:, 5:], window=(1, 0), alibi_slopes=np.arange(4.0)))


@pytest.mark.parametrize("cu_q, cu_k, word", [
    ([0, 2, 3], [0, 4], "cu_seqlens"), ([0, 2], [0, 4], "cu_seqlens_q"), ([0, 3], [0, 5, 4], "cu_seqlens_k"),
    ([1, 3], [0, 4], "cu_seqlens_q"), ([[0, 3]], [0, 4], "cu_seqlens_q"),
])
def test_varlen_refuses_bad_offsets(cu_q, cu_k, word):
    q, k = np.zeros((3, 2)), np.zeros((4, 2))
    with pytest.raises(ValueError, match=word):
        ref.varlen_attention(q, k, k, cu_q, cu_k)
    with pytest.raises(TypeError, match="cu_seqlens_q"):
        ref.varlen_attention(q, k, k, [0.0, 3.0], [0, 4])


def test_paged_is_contiguous():
    rng = np.random.default_rng(1)
    page, lens = 4, [9, 4, 0]
    k_pages, v_pages = rng.standard_normal((7, 2, page, 3)), rng.standard_normal((7, 2, page, 2))
    table = np.array([[5, 0, 2], [6, 99, -1], [-1, -1, -1]])    # entries beyond the length are never read
    q = rng.standard_normal((3, 4, 2, 3))
    k_pages[2, :, 1:] = np.nan                                  # nor are keys beyond it
    out, lse = ref.paged_attention(q, k_pages, v_pages, table, lens, return_lse=True)
    for b, pages in enumerate(([5, 0, 2], [6], [])):
        k, v = (np.concatenate([x[p] for p in pages], 1)[:, :lens[b]] if pages else x[0][:, :0]
                for x in (k_pages, v_pages))
        want, want_lse = ref.softmax_attention(q[b], k, v, causal=True, return_lse=True)
        np.testing.assert_array_equal(out[b], want)
        np.testing.assert_array_equal(lse[b], want_lse)
    assert not out[2].any() and (lse[2] == -INF).all()
    for bad_table, bad_lens, word in ((table, [13, 4, 0], "seq_lens"), (table, [9, 5, 0], "page_table"),
                                      (table[:2], lens, "page_table"), (table, lens[:2], "seq_lens")):
        with pytest.raises(ValueError, match=word):
            ref.paged_attention(q, k_pages, v_pages, bad_table, bad_lens)


def test_block_sparse_is_a_mask():
    rng = np.random.default_rng(2)
    q, k, v = rng.standard_normal((3, 7, 2)), rng.standard_normal((3, 9, 2)), rng.standard_normal((3, 9, 4))
    blocks, mask = rng.random((3, 4, 3)) < 0.5, rng.random((7, 9)) < 0.8
    dense = blocks.repeat(2, 1).repeat(4, 2)[:, :7, :9]
    want = ref.softmax_attention(q, k, v, mask=dense & mask & np.tri(7, 9, 2, bool), return_lse=True)
    got = ref.block_sparse_attention(q, k, v, blocks, block_q=2, block_k=4, causal=True, mask=mask, return_lse=True)
    for w, g in zip(want, got):
        np.testing.assert_array_equal(g, w)
    with pytest.raises(ValueError, match="block_mask"):
        ref.block_sparse_attention(q, k, v, blocks, block_q=1, block_k=4)


def test_backward_of_lse_is_the_map():
    """d lse_i / d bias_ij = p_ij: central differences tie lse and weights together."""
    rng = np.random.default_rng(3)
    q, k = rng.standard_normal((2, 3)), rng.standard_normal((4, 3))
    bias, h = rng.standard_normal((2, 4)), 1e-6
    p = ref.attention_weights(q, k, bias=bias, sink_logits=0.2)
    for i, j in np.ndindex(2, 4):
        step = np.zeros((2, 4))
        step[i, j] = h
        up, down = (ref.softmax_attention(q, k, k, bias=b, sink_logits=0.2, return_lse=True)[1]
                    for b in (bias + step, bias - step))
        np.testing.assert_allclose((up - down)[i] / (2 * h), p[i, j], rtol=1e-8)
