"""Run from a checkout with the package that was installed from it.

Python puts the current directory first on its path, so ``python -m attnkit`` in the root of a checkout finds the sources
there, which have no compiled extension. `use_compiled` then points the package at the installed copy.
"""

import os
import sys
from importlib.machinery import EXTENSION_SUFFIXES


def use_compiled(package_path):
    """Make `package_path`, the package's ``__path__``, the first folder that holds the compiled extension.

    Parameters
    ----------
    package_path : list of str
        Changed in place; left alone when its own folder holds the extension, as in every installed copy.

    Raises
    ------
    ImportError
        If no folder on the path holds it.
    """
    candidates = [*package_path, *(os.path.join(entry, "attnkit") for entry in sys.path)]
    for folder in candidates:
        if any(os.path.exists(os.path.join(folder, "_core" + suffix)) for suffix in EXTENSION_SUFFIXES):
            package_path[:] = [folder]
            return
    raise ImportError(f"attnkit in {package_path[0]} is not compiled and no installed copy was found: run pip install . first")
