"""Every example in a docstring runs and prints what it says."""

import doctest
import importlib
import pkgutil

import pytest

import attnkit

MODULES = ["attnkit"] + sorted(
    info.name
    for info in pkgutil.walk_packages(attnkit.__path__, "attnkit.")
    if not info.name.endswith(("__main__", "._core"))
)


@pytest.mark.parametrize("module", MODULES)
def test_examples(module):
    loaded = importlib.import_module(module)
    result = doctest.testmod(loaded, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0
