"""The papers behind attnkit: what each proposes, and what of it can be called today."""

import difflib
import functools
import html
import importlib
import json
import pathlib
import pkgutil
import re
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

_DATA = pathlib.Path(__file__).with_name("catalogue_data.json")
# Modules whose names are not operators: a plan or a twin of the same name would count as an operator that is there.
_NOT_FAMILIES = {"catalogue", "datasets", "masks", "plot", "reference", "report", "testing"}
_HTML_ROWS = 40


@dataclass(frozen=True, repr=False)
class Paper:
    """One paper of the catalogue.

    Attributes
    ----------
    number : int
        Its number in the catalogue, 1 .. 193.
    slug : str
        Short name; its module is ``p<number>_<slug>``.
    title : str
        Title of the paper.
    family : str
        The part of the catalogue that treats it.
    arxiv : str
        arXiv identifier, or an empty string.
    functions : tuple of str
        Names of the functions that stand for the paper, shared ones included.
    missing : tuple of str
        Those of them that this version of attnkit does not offer.
    """

    number: int
    slug: str
    title: str
    family: str
    arxiv: str
    functions: tuple
    missing: tuple

    @property
    def status(self):
        """"available", "partial" or "planned"; "no operator" for a paper that proposes nothing to compute."""
        if not self.functions:
            return "no operator"
        if not self.missing:
            return "available"
        return "partial" if len(self.missing) < len(self.functions) else "planned"

    def __repr__(self):
        lines = [f"{self.number:03d} {self.slug}: {self.title}",
                 f"    family     {self.family}" + (f", arXiv:{self.arxiv}" if self.arxiv else ""),
                 f"    status     {self.status}"]
        here = [name for name in self.functions if name not in self.missing]
        for label, names in (("available", here), ("planned", self.missing)):
            if names:
                lines.append(textwrap.fill(", ".join(names), 100, initial_indent=f"    {label:<11}",
                                           subsequent_indent=" " * 15))
        return "\n".join(lines)

    def _repr_html_(self):
        return f"<pre>{html.escape(repr(self))}</pre>"


class PaperList(Sequence):
    """Papers in a row; prints as a table, indexes and slices like a list."""

    def __init__(self, papers):
        self._papers = tuple(papers)

    def __len__(self):
        return len(self._papers)

    def __getitem__(self, index):
        return PaperList(self._papers[index]) if isinstance(index, slice) else self._papers[index]

    def __eq__(self, other):
        return isinstance(other, PaperList) and self._papers == other._papers

    def __hash__(self):
        return hash(self._papers)

    def _rows(self):
        return [(f"{p.number:03d}", p.slug, p.status, p.family, _shortened(p.title, 60)) for p in self._papers]

    def __repr__(self):
        rows = [("no.", "slug", "status", "family", "title"), *self._rows()]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]])
                 for row in rows]
        return "\n".join([*lines, self._summary()])

    def _summary(self):
        counts = {}
        for paper in self._papers:
            counts[paper.status] = counts.get(paper.status, 0) + 1
        return f"{len(self)} papers" + "".join(f", {n} {status}" for status, n in sorted(counts.items()))

    def _repr_html_(self):
        head = "".join(f"<th>{name}</th>" for name in ("no.", "slug", "status", "family", "title"))
        body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
                       for row in self._rows()[:_HTML_ROWS])
        more = f"; the first {_HTML_ROWS} are shown" if len(self) > _HTML_ROWS else ""
        return f"<table><tr>{head}</tr>{body}</table><p>{html.escape(self._summary())}{more}</p>"


def catalog(query=None):
    """List the papers behind attnkit, or find some.

    Parameters
    ----------
    query : str or int, optional
        A number (``85``, ``"085"``), a slug (``"flashattention"``), the name of a function
        (``"attention_cascade"``), a title, or words of title, slug and family, tried in this order.  None = all
        papers.

    Returns
    -------
    PaperList or Paper
        All papers for None; one `Paper` when exactly one fits, a `PaperList` when several do.  Both print
        themselves in a readable form.

    Raises
    ------
    LookupError
        When nothing fits; the message lists near matches.
    TypeError
        When `query` is neither a string nor an integer.

    Notes
    -----
    The status is looked up, not stored: "available" when every function of the paper can be imported from
    attnkit, "partial" when some can, "planned" when none can, "no operator" when the paper proposes nothing
    that is computed on attention.

    Examples
    --------
    >>> from attnkit.catalogue import catalog
    >>> len(catalog())
    193
    >>> catalog("fusemax").functions
    ('attention_cascade', 'cascade_counts')
    >>> catalog("io-awareness").number
    85
    >>> [paper.number for paper in catalog("lightning attention")]
    [80, 88, 192]
    """
    papers = _papers()
    if query is None:
        return PaperList(papers)
    if isinstance(query, bool) or not isinstance(query, (str, int)):
        raise TypeError(f"query must be a string or an integer, got {type(query).__name__}")
    found = _find(papers, str(query).strip())
    if not found:
        raise LookupError(f"no paper of the catalogue fits {query!r}{_near(papers, str(query))}")
    return found[0] if len(found) == 1 else PaperList(found)


def _find(papers, query):
    if query.isdecimal():
        return [paper for paper in papers if paper.number == int(query)]
    word = _plain(query)
    for fits in (lambda p: _plain(p.slug) == word, lambda p: query in p.functions, lambda p: _plain(p.title) == word):
        found = [paper for paper in papers if fits(paper)]
        if found:
            return found
    words = word.split()
    return [paper for paper in papers
            if words and all(w in _plain(f"{paper.slug} {paper.title} {paper.family}") for w in words)]


def _plain(text):
    """Lower case, every run of punctuation one space."""
    return re.sub(r"[^\w]+|_", " ", text.casefold()).strip()


def _near(papers, query):
    """Text with the names that look like the query; empty when none does."""
    names = {}
    for paper in papers:
        for name in (paper.slug, *paper.functions, *_plain(paper.title).split()):
            names.setdefault(name.casefold(), f"{name} ({paper.number:03d})")
    near = difflib.get_close_matches(query.casefold(), names, n=5, cutoff=0.6)
    return "; near: " + ", ".join(names[name] for name in near) if near else ""


@functools.cache
def _entries():
    return json.loads(_DATA.read_text(encoding="utf-8"))


def _papers():
    """All papers with what is missing now."""
    entries = _entries()
    offered = _offered({name for entry in entries for name in entry[5]})
    return [Paper(number, slug, title, family, arxiv, tuple(names), tuple(n for n in names if n not in offered))
            for number, slug, title, family, arxiv, names in entries]


def _offered(names):
    """Those of `names` that attnkit or one of its families has as a callable."""
    package = sys.modules[__package__]
    modules = [package]
    for info in pkgutil.iter_modules(package.__path__):
        if not info.name.startswith("_") and info.name not in _NOT_FAMILIES:
            modules.append(importlib.import_module(f"{__package__}.{info.name}"))
    return {name for name in names if any(callable(getattr(module, name, None)) for module in modules)}


def _shortened(text, width):
    return text if len(text) <= width else text[: width - 3].rstrip() + "..."
