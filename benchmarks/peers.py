"""The calls that are timed, library by library.

`LIBRARIES[name]` is a class: its constructor imports the library and sets the threads, `version` says what it is, and
`calls(case, arrays)` returns the ways to compute the case: a dict from the name shown in tables to a pair
(function without arguments, function that turns its result into a dict of NumPy arrays).
"""

import numpy as np

from .grid import STATISTICS, itemsize


class Unsupported(Exception):
    """The library has no way to compute the case; the message says why."""


class Attnkit:
    def __init__(self, threads):
        import attnkit

        self.library = attnkit
        attnkit.set_num_threads(threads)
        self.version = f"{attnkit.__version__} on {attnkit.cpu_info()['target']}, {attnkit._core.__file__}"

    def calls(self, case, arrays):
        attention = self.library.softmax_attention
        q, k, v = arrays["q"], arrays["k"], arrays["v"]
        options = case.options | {name: arrays[name] for name in ("bias", "mask") if name in arrays}

        def forward():
            return attention(q, k, v, **options)

        if case.kind == "received":
            return {"attnkit": (lambda: self._received(q, k, v, options), dict)}
        calls = {"attnkit": (forward, only_output)}
        if case.kind == "statistics":
            run = lambda: attention(q, k, v, stats=STATISTICS, **options)  # noqa: E731
            calls["attnkit.stats"] = (run, lambda result: {"out": result[0], **result[1]})
        if case.kind == "half":
            single = [np.asarray(x, np.float32) for x in (q, k, v)]
            calls["attnkit.f32"] = (lambda: attention(*single, **options), only_output)
        if case.kind == "scaling":
            calls["attnkit.one"] = (lambda: self._one_thread(forward), only_output)
        return calls

    def _received(self, q, k, v, options):
        out, stats = self.library.softmax_attention(q, k, v, stats=("entropy", "received"), **options)
        return {"out": out, **stats}

    def _one_thread(self, run):
        with self.library.threads(1):
            return run()


class Torch:
    def __init__(self, threads):
        import torch

        self.library = torch
        torch.set_num_threads(threads)
        torch.inference_mode().__enter__()  # for the life of the process
        self.version = torch.__version__

    def calls(self, case, arrays):
        t = {name: self._tensor(array) for name, array in arrays.items()}
        if case.variant == "window":
            # The fused operator has no window; a boolean mask is how its users write one.
            t["mask"] = self.library.from_numpy(case.allowed(np.arange(case.lq)))
        output = lambda out: {"out": self._array(out).reshape(arrays["q"].shape)}  # noqa: E731
        if case.kind == "received":
            return {
                "torch": (self._fused(case, t), output),
                "torch.eager": (lambda: self._received(case, t), lambda r: {name: self._array(x) for name, x in r.items()}),
            }
        calls = {"torch": (self._fused(case, t), output)}
        if case.kind == "curve":
            calls["torch.eager"] = (lambda: self._map(case, t) @ t["v"], output)
        return calls

    def _tensor(self, array):
        if array.dtype.name == "bfloat16":
            return self.library.from_numpy(array.view(np.uint16)).view(self.library.bfloat16)
        return self.library.from_numpy(array)

    def _array(self, tensor):
        wide = tensor.float() if tensor.dtype == self.library.bfloat16 else tensor
        return wide.numpy()

    def _fused(self, case, t):
        """scaled_dot_product_attention; grouped heads as a view with zero strides, which it reads without a copy."""
        attention = self.library.nn.functional.scaled_dot_product_attention
        q, k, v = (t[name][None] for name in "qkv")
        if case.variant == "grouped":
            shape = (case.key_heads, case.heads // case.key_heads)
            q = t["q"].view(*shape, case.lq, case.d)
            k, v = (t[name][:, None].expand(*shape, case.lk, case.d) for name in "kv")
        mask = t.get("mask", t.get("bias"))  # (length, length) or one for each head
        causal = case.variant == "causal"
        return lambda: attention(q, k, v, attn_mask=mask, is_causal=causal)

    def _map(self, case, t):
        """The whole map, as in eager code of a model."""
        scores = t["q"] @ t["k"].transpose(-1, -2) * (1.0 / case.d**0.5)
        if case.variant == "causal":
            future = self.library.ones(case.lq, case.lk, dtype=self.library.bool).triu_(1)
            scores = scores.masked_fill_(future, float("-inf"))
        return self.library.softmax(scores, -1)

    def _received(self, case, t):
        p = self._map(case, t)
        entropy = self.library.special.entr(p).sum(-1)
        return {"out": p @ t["v"], "entropy": entropy, "received": p.sum(-2)}


class OnnxRuntime:
    def __init__(self, threads):
        import onnx
        import onnxruntime

        self.library, self.onnx, self.threads = onnxruntime, onnx, threads
        self.version = onnxruntime.__version__

    def calls(self, case, arrays):
        if case.dtype != "float32" or case.kind == "received":
            raise Unsupported("only the float32 forward pass is compared")
        feeds, nodes = self._graph(case, arrays)
        session = self._session(nodes, feeds)
        run = lambda: session.run(None, feeds)  # noqa: E731

        def output(results):
            out = results[0][0]
            if out.ndim == 2:  # (length, heads * features)
                out = out.reshape(case.lq, case.heads, case.d).swapaxes(0, 1)
            return {"out": out}

        return {"onnxruntime": (run, output)}

    def _graph(self, case, arrays):
        """Feeds and node. MultiHeadAttention is its fastest operator; grouped heads need the standard Attention."""
        helper = self.onnx.helper
        causal = int(case.variant == "causal")
        if case.variant == "grouped":
            feeds = {name: arrays[name][None] for name in "qkv"}
            return feeds, [helper.make_node("Attention", list("qkv"), ["out"], is_causal=causal)]
        feeds = {name: np.ascontiguousarray(arrays[name].swapaxes(0, 1)).reshape(1, -1, case.heads * case.d) for name in "qkv"}
        names = list("qkv")
        allowed = case.allowed(np.arange(case.lq)) if case.variant == "window" else arrays.get("mask")
        if allowed is not None or "bias" in arrays:
            # The operator has no boolean mask and no window: both become an additive bias.
            bias = arrays["bias"] if allowed is None else np.where(allowed, np.float32(0), np.finfo(np.float32).min)
            feeds["bias"] = bias.reshape(1, -1, case.lq, case.lk)  # one for all heads, or one each
            names += ["", "", "bias"]
        options = {"domain": "com.microsoft", "num_heads": case.heads, "unidirectional": causal}
        return feeds, [helper.make_node("MultiHeadAttention", names, ["out"], **options)]

    def _session(self, nodes, feeds):
        helper, real = self.onnx.helper, self.onnx.TensorProto.FLOAT
        inputs = [helper.make_tensor_value_info(name, real, array.shape) for name, array in feeds.items()]
        graph = helper.make_graph(nodes, "attention", inputs, [helper.make_tensor_value_info("out", real, None)])
        versions = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=versions, ir_version=10)
        options = self.library.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        return self.library.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


class NumPy:
    def __init__(self, threads):
        self.version = np.__version__  # threads of its BLAS come from the environment

    def calls(self, case, arrays):
        if itemsize(case.dtype) == 2:
            raise Unsupported("NumPy has no fast product of half-precision matrices")
        q, k, v = arrays["q"], arrays["k"], arrays["v"]
        bias = arrays.get("bias")
        allowed = arrays.get("mask", case.allowed(np.arange(case.lq)))
        forbidden = None if allowed is None else ~allowed
        groups = case.heads // case.key_heads
        shape = (case.key_heads, groups * case.lq)  # the queries of a group stand below each other

        def weights():
            s = q.reshape(*shape, case.d) @ k.swapaxes(-1, -2)
            s *= q.dtype.type(1.0 / case.d**0.5)
            rows = s.reshape(case.heads, case.lq, case.lk)
            if bias is not None:
                rows += bias
            if forbidden is not None:
                np.copyto(rows, -np.inf, where=forbidden)
            s -= s.max(axis=-1, keepdims=True)
            np.exp(s, out=s)
            s /= s.sum(axis=-1, keepdims=True)
            return s

        def forward():
            return (weights() @ v).reshape(q.shape)

        def received():
            p = weights()
            entropy = -(p * np.log(p, out=np.zeros_like(p), where=p > 0)).sum(axis=-1)
            return {"out": p @ v, "entropy": entropy, "received": p.sum(axis=-2)}

        if case.kind == "received":
            return {"numpy": (received, dict)}
        return {"numpy": (forward, only_output)}


def only_output(out):
    return {"out": out}


LIBRARIES = {"attnkit": Attnkit, "torch": Torch, "onnxruntime": OnnxRuntime, "numpy": NumPy}
COLUMNS = ("attnkit", "torch", "torch.eager", "onnxruntime", "numpy")
