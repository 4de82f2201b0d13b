"""The recordings that ship with the package: what is in them, and that they are attention of real models."""

from pathlib import Path

import numpy as np
import pytest

from attnkit import datasets

SHAPES = {
    "minilm-l6": {"q": (6, 12, 66, 32), "kv": (6, 12, 66, 32), "layers": [0, 1, 2, 3, 4, 5], "causal": False},
    "smollm2-135m": {"q": (6, 9, 64, 64), "kv": (6, 3, 64, 64), "layers": [0, 6, 12, 17, 23, 29], "causal": True},
}


def test_all_recordings_are_listed():
    assert datasets.list_recorded() == sorted(SHAPES)


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_contents(name):
    recording, expected = datasets.load_recorded(name), SHAPES[name]
    assert recording.name == name
    assert recording.q.shape == expected["q"]
    assert recording.k.shape == recording.v.shape == expected["kv"]
    assert recording.layers == expected["layers"]
    assert recording.causal is expected["causal"]
    assert recording.licence == "Apache-2.0"
    assert recording.scale == pytest.approx(expected["q"][-1] ** -0.5, rel=1e-15)
    assert len(recording.tokens) == expected["q"][-2]
    assert all(isinstance(token, str) and token for token in recording.tokens)
    for array in (recording.q, recording.k, recording.v):
        assert array.dtype == np.float16
        assert np.isfinite(array).all()
    assert 0 < recording.max_deviation["map"] < 2e-3
    assert 0 < recording.max_deviation["output"] < 2e-3


def test_tokens_spell_the_text():
    decoder = datasets.load_recorded("smollm2-135m")
    assert "".join(decoder.tokens) == decoder.text
    encoder = datasets.load_recorded("minilm-l6")
    assert encoder.tokens[0] == "[CLS]" and encoder.tokens[-1] == "[SEP]"
    pieces = "".join(token.removeprefix("##") for token in encoder.tokens[1:-1])
    assert pieces == encoder.text.lower().replace(" ", "")


@pytest.mark.parametrize("dtype", [np.float32, "float64"])
@pytest.mark.parametrize("name", sorted(SHAPES))
def test_dtype_on_request_holds_the_same_values(name, dtype):
    stored, wide = datasets.load_recorded(name), datasets.load_recorded(name, dtype=dtype)
    for key in "qkv":
        assert getattr(wide, key).dtype == np.dtype(dtype)
        np.testing.assert_array_equal(getattr(wide, key), getattr(stored, key))


def test_arrays_belong_to_the_caller():
    first = datasets.load_recorded("minilm-l6")
    first.q[:] = 0
    assert datasets.load_recorded("minilm-l6").q.any()


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match="name: .*'gpt'.*minilm-l6, smollm2-135m"):
        datasets.load_recorded("gpt")
    with pytest.raises(ValueError, match="dtype: .*int64"):
        datasets.load_recorded("minilm-l6", dtype=np.int64)


def test_size_limit_and_no_pickles():
    files = sorted(Path(datasets.__file__).parent.glob("*.npz"))
    assert sum(file.stat().st_size for file in files) <= 2_000_000
    for file in files:
        with np.load(file, allow_pickle=False) as data:
            assert {"q", "k", "v", "tokens", "layers", "causal", "scale"} <= set(data.files)
            assert all(not data[key].dtype.hasobject for key in data.files)


def test_repr_says_what_it_is():
    text = repr(datasets.load_recorded("smollm2-135m"))
    for part in (
        "smollm2-135m",
        "SmolLM2-135M-Instruct",
        "causal",
        "0, 6, 12, 17, 23, 29",
        "9 heads (3 of keys)",
        "float16",
    ):
        assert part in text
    assert max(map(len, text.splitlines())) <= 100
    assert "bidirectional" in repr(datasets.load_recorded("minilm-l6"))


def weights(recording):
    """All maps, in float64."""
    length = len(recording.tokens)
    k = np.repeat(recording.k.astype(np.float64), recording.q.shape[1] // recording.k.shape[1], axis=1)
    s = recording.scale * recording.q.astype(np.float64) @ k.swapaxes(-1, -2)
    if recording.causal:
        s = np.where(np.tril(np.ones((length, length), bool)), s, -np.inf)
    p = np.exp(s - s.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


# Traits of trained models, known from the literature, that scrambled rows, heads or rotations would not show.


def test_the_decoder_rests_on_its_first_token():
    sink = weights(datasets.load_recorded("smollm2-135m"))[..., 8:, 0].mean((1, 2))
    assert sink[0] < 0.3 and sink[2:5].min() > 0.4


def test_the_decoder_continues_what_came_before():
    """Induction: at the second " ship" some head attends to the token after the first, far above 1/47."""
    recording = datasets.load_recorded("smollm2-135m")
    first = recording.tokens.index(" ship")
    second = recording.tokens.index(" ship", first + 1)
    assert weights(recording)[recording.layers.index(17), :, second, first + 1].max() > 0.5


def test_the_encoder_has_a_head_for_the_previous_token():
    p = weights(datasets.load_recorded("minilm-l6"))[0]
    assert np.diagonal(p, offset=-1, axis1=1, axis2=2).min(1).max() > 0.9
