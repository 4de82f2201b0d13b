"""Every exact function against its float64 twin: values, order, shapes, dtypes; and what both refuse."""

import zlib

import cases
import numpy as np
import pytest

ROWS = [pytest.param(case, dtype, id=f"{case.name} [{dtype}]") for case in cases.CASES for dtype in case.dtypes]


def rng_of(*words):
    """Random numbers that depend on the words alone."""
    return np.random.default_rng(zlib.crc32(" ".join(words).encode()))


@pytest.mark.parametrize("case, dtype", ROWS)
def test_against_the_twin(case, dtype):
    args, kwargs = case.make_inputs(rng_of(case.name, dtype), dtype)
    case.check(case.run(args, kwargs), args, kwargs)
