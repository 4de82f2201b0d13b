"""Reading q, k, v from a user's .npz file."""

from __future__ import annotations

import zipfile

import numpy as np


class InputError(ValueError):
    """Something is wrong with what the user gave; the message is one line for the terminal."""


def read_npz(path):
    """Read a file with the arrays q, k, v and, if present, tokens, layers, causal and scale.

    Nothing is unpickled. Shapes and values are checked later, by `attnkit.report.head_report`.

    Returns
    -------
    dict
        Keyword arguments of `head_report`: q, k, v, and those of the others that the file has.

    Raises
    ------
    InputError
        If the file cannot be read, is not an .npz archive, or lacks one of q, k and v.
    """
    # Opened here rather than by NumPy, which leaves the file open when it turns out to be no archive.
    try:
        with open(path, "rb") as file:
            arrays = _read_members(path, file)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None

    if "tokens" in arrays:
        tokens = arrays["tokens"]
        if tokens.ndim != 1 or tokens.dtype.kind not in "US":
            raise InputError(f"{path}: tokens: expected a 1-D array of strings, got {tokens.dtype} {tokens.shape}")
        arrays["tokens"] = tokens.tolist()
    if "layers" in arrays:
        layers = arrays["layers"]
        if layers.ndim != 1 or layers.dtype.kind not in "iu":
            raise InputError(f"{path}: layers: expected a 1-D array of integers, got {layers.dtype} {layers.shape}")
        arrays["layers"] = layers.tolist()
    for key, kinds, what in (("causal", "b", "one bool"), ("scale", "fiu", "one number")):
        if key in arrays:
            value = arrays[key]
            if value.size != 1 or value.dtype.kind not in kinds:
                raise InputError(f"{path}: {key}: expected {what}, got {value.dtype} {value.shape}")
            arrays[key] = value.reshape(()).item()
    return arrays


def _read_members(path, file):
    try:
        archive = np.load(file, allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile):
        raise InputError(f"{path}: is not an .npz file") from None
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise InputError(f"{path}: is a single array; expected an .npz file with the arrays q, k, v")
    with archive:
        missing = [key for key in "qkv" if key not in archive.files]
        if missing:
            found = ", ".join(archive.files) or "nothing"
            raise InputError(f"{path}: has no array {', '.join(missing)} (found: {found})")
        optional = [key for key in ("tokens", "layers", "causal", "scale") if key in archive.files]
        return {key: _member(path, archive, key) for key in (*"qkv", *optional)}


def _member(path, archive, key):
    try:
        return archive[key]
    except MemoryError as error:
        raise InputError(f"{path}: {key}: does not fit in memory ({error})") from None
    except Exception as error:
        # A damaged member fails in whatever part of zlib, zipfile, tokenize or NumPy stumbles over it first.
        if "allow_pickle" in str(error):
            raise InputError(f"{path}: {key}: is an array of Python objects; save numbers or strings") from None
        raise InputError(f"{path}: {key}: cannot be read ({error})") from None
