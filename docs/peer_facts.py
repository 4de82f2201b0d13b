"""Print the facts about other libraries that README.md states: what they do at the edges, on this machine's CPU.

Needs PyTorch (and a C++ compiler for FlexAttention, which runs compiled): python docs/peer_facts.py
"""

import numpy as np
import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

import attnkit

LENGTH, HEADS, FEATURES = 300, 4, 64
compiled_flex = torch.compile(flex_attention)


def ours(q, k, v, allowed):
    return torch.from_numpy(attnkit.softmax_attention(q, k, v, mask=allowed))


def sdpa(q, k, v, allowed):
    return scaled_dot_product_attention(q, k, v, attn_mask=allowed)


def flex(q, k, v, allowed):
    mask = create_block_mask(lambda b, h, i, j: allowed[i, j], 1, 1, *allowed.shape, device="cpu")
    return compiled_flex(q, k, v, block_mask=mask)


def eager(q, k, v, allowed):
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    return torch.softmax(scores.masked_fill(~allowed, float("-inf")), -1) @ v


def empty_row(attend, q, k, v):
    allowed = torch.ones(LENGTH, LENGTH, dtype=torch.bool)
    allowed[5] = False
    return f"row without key gives {attend(q, k, v, allowed)[0, 0, 5, 0].item()}"


def nan_behind_mask(attend, q, k, v):
    v = v.clone()
    v[..., -1, :] = float("nan")  # a causal mask hides it from all rows but the last
    spoiled = attend(q, k, v, torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()).isnan().any(-1)
    return f"NaN in the last value spoils {int(spoiled[0, 0].sum())} of {LENGTH} rows (1 attends to it)"


def one_row(attend, q, k, v):
    allowed = torch.ones(LENGTH, LENGTH, dtype=torch.bool)
    whole = attend(q, k, v, allowed)
    same = sum(torch.equal(whole[:, :, i : i + 1], attend(q[:, :, i : i + 1], k, v, allowed[i : i + 1])) for i in range(0, LENGTH, 10))
    return f"{same} of {LENGTH // 10} rows have the bytes of the row computed alone"


def double(attend, q, k, v):
    q, k, v = (x.double() for x in (q, k, v))
    return f"float64: {attend(q, k, v, torch.ones(LENGTH, LENGTH, dtype=torch.bool)).dtype}"


def main():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, HEADS, LENGTH, FEATURES)
    print(f"attnkit {attnkit.__version__}, PyTorch {torch.__version__}, NumPy {np.__version__}")
    for attend in (ours, sdpa, flex, eager):
        for fact in (empty_row, nan_behind_mask, one_row, double):
            try:
                text = fact(attend, q, k, v)
            except Exception as error:  # what a library refuses is a fact about it
                text = f"{fact.__name__}: {type(error).__name__}: {str(error).splitlines()[0]}"
            print(f"{attend.__name__:6} {text}")
    q, k = torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 4, 4)
    v = torch.arange(4.0).reshape(1, 1, 4, 1)
    print("causal, 2 queries, 4 keys, values 0 1 2 3:")
    print("ours  ", attnkit.softmax_attention(q, k, v, causal=True).ravel().tolist())
    print("sdpa  ", scaled_dot_product_attention(q, k, v, is_causal=True).ravel().tolist())


if __name__ == "__main__":
    main()
