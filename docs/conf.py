"""Sphinx: python -m sphinx -W docs docs/_build (extras: pip install "attnkit[docs]"). Works without a network."""

import attnkit

project = "attnkit"
author = "the attnkit developers"
copyright = author
version = release = attnkit.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.mathjax", "numpydoc", "myst_parser"]
exclude_patterns = ["_build", "_templates"]
templates_path = ["_templates"]
html_theme = "alabaster"
html_theme_options = {"description": "Exact attention on NumPy arrays", "page_width": "1060px", "sidebar_width": "230px"}
html_sidebars = {"**": ["about.html", "searchfield.html", "navigation.html"]}
html_copy_source = False

autosummary_ignore_module_all = False
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
# All checks but those of taste: extended summaries, capitals of fragments, a See Also everywhere.
numpydoc_validation_checks = {"all", "ES01", "SA01", "SA03", "SA04", "PR07", "PR08", "RT02", "RT03", "RT04", "SS05"}
# Twins share the documentation of their namesakes; classes are made by functions, not by their users.
numpydoc_validation_exclude = {r"\.reference\.", r"\.AttentionState", r"\.MaskPlan", r"\.Report", r"\.Recording", r"\.Paper", r"\.plot\."}

myst_heading_anchors = 3
# Links to files of the repository, which are no pages; pages that the index lists by a pattern.
suppress_warnings = ["myst.xref_missing", "toc.empty_glob"]
