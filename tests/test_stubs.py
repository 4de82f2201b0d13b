"""The stubs say what the functions say: names, kinds and defaults of the parameters. (mypy's stubtest says the same and more:
python -m mypy.stubtest attnkit --allowlist tests/stubtest.allow)"""

import ast
import inspect
from importlib import import_module
from pathlib import Path

import pytest

import attnkit

PACKAGE = Path(attnkit.__file__).parent
STUBS = sorted((PACKAGE / "exact").glob("*.pyi"))


def definitions(body):
    for node in body:
        if isinstance(node, ast.FunctionDef):
            yield node
        elif isinstance(node, ast.ClassDef):
            for inner in definitions(node.body):
                inner.name = f"{node.name}.{inner.name}"
                yield inner


def parameters(node):
    """[(name, keyword only, default or ...)] of a stub's function."""
    a = node.args
    defaults = [None] * (len(a.args) - len(a.defaults)) + a.defaults
    rows = [(x.arg, False, d) for x, d in zip(a.args, defaults)] + [(x.arg, True, d) for x, d in zip(a.kwonlyargs, a.kw_defaults)]
    return [(name, keyword, ... if d is None else ast.literal_eval(d)) for name, keyword, d in rows]


@pytest.mark.parametrize("path", STUBS, ids=lambda path: path.stem)
def test_stubs_have_the_signatures_of_the_functions(path):
    module = import_module(f"attnkit.exact.{path.stem}")
    last = {node.name: node for node in definitions(ast.parse(path.read_text()).body)}  # of overloads: the general one
    for name, node in last.items():
        function = module
        for part in name.split("."):
            function = getattr(function, part)
        ours = [(p.name, p.kind is p.KEYWORD_ONLY, ... if p.default is p.empty else p.default)
                for p in inspect.signature(function).parameters.values()]
        assert parameters(node) == ours, name
    public = {name for name, f in vars(module).items() if inspect.isfunction(f) and f.__module__ == module.__name__ and name in attnkit.exact.__all__}
    assert public <= set(last)


def test_the_package_stub_exports_all_public_names():
    tree = ast.parse((PACKAGE / "__init__.pyi").read_text())
    imported = {alias.asname for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names if alias.asname == alias.name}
    assert set(attnkit.__all__) <= imported
    (listed,) = [ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign)]
    assert listed == attnkit.__all__


def test_the_core_stub_lists_the_functions_of_the_extension():
    from attnkit import _core

    named = {node.name for node in ast.parse((PACKAGE / "_core.pyi").read_text()).body if isinstance(node, ast.FunctionDef)}
    assert named == {name for name in dir(_core) if not name.startswith("__")}


def test_the_package_is_marked_as_typed():
    assert (PACKAGE / "py.typed").exists()
