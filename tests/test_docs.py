"""What the pages say is true: their Python runs, their commands exist, public docstrings are complete."""

import importlib
import inspect
import re

import attnkit
import pytest
from conftest import ROOT

PAGES = ["README.md", "docs/tutorial.md"]
MODULES = ["attnkit", "attnkit.exact", "attnkit.masks", "attnkit.report", "attnkit.datasets", "attnkit.testing"]


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(encoding="utf-8"), re.M | re.S)


@pytest.mark.parametrize("page", PAGES)
def test_python_of_a_page(page, tmp_path, monkeypatch):
    """The blocks run in order in one namespace; one that needs transformers is only compiled."""
    monkeypatch.chdir(tmp_path)
    names = {}
    for number, block in enumerate(blocks(page)):
        code = compile(block, f"{page}, block {number}", "exec")
        if "transformers" not in block:
            exec(code, names)
    assert names


def test_links_lead_to_files():
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_api_index_names_everything():
    """What attnkit itself offers beside attnkit.exact stands in the index by name, the rest by module."""
    index = (ROOT / "docs/api/index.rst").read_text(encoding="utf-8").split()
    assert set(attnkit.__all__) - set(attnkit.exact.__all__) - {"masks"} <= set(index)
    assert set(MODULES) - {"attnkit"} <= set(index)


@pytest.mark.parametrize("module", MODULES)
def test_docstrings_are_complete(module):
    """Every parameter of every public function is described, and so on: the checks of docs/conf.py."""
    validate = pytest.importorskip("numpydoc.validate").validate
    conf = {}
    exec((ROOT / "docs/conf.py").read_text(encoding="utf-8"), conf)
    ignored = conf["numpydoc_validation_checks"] - {"all"}
    members = vars(importlib.import_module(module))
    for name in members.get("__all__") or attnkit.__all__:
        if inspect.isfunction(getattr(attnkit if module == "attnkit" else importlib.import_module(module), name)):
            wrong = [error for error in validate(f"{module}.{name}")["errors"] if error[0] not in ignored]
            assert not wrong, f"{module}.{name}: {wrong}"
