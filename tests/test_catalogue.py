"""The catalogue: complete, searchable, and its statuses follow what can be imported."""

import re

import pytest

import attnkit
from attnkit.catalogue import Paper, PaperList, catalog


def test_all_papers_are_there_once():
    papers = catalog()
    assert isinstance(papers, PaperList) and [p.number for p in papers] == list(range(1, 194))
    assert len({p.slug for p in papers}) == 193
    for p in papers:
        assert p.title and p.family and re.fullmatch(r"(\d{4}\.\d{4,5})?", p.arxiv)
        assert re.fullmatch(r"[a-z0-9][a-z0-9_-]*", p.slug)
        assert len(set(p.functions)) == len(p.functions) and all(name.isidentifier() for name in p.functions)
        assert set(p.missing) <= set(p.functions)


@pytest.mark.parametrize("query", [85, "85", "085", " 085 ", "flashattention", "FlashAttention", "io-awareness",
                                   "flash_attention_tiled", "exact memory-efficient attention io"])
def test_one_paper_is_found_in_many_ways(query):
    paper = catalog(query)
    assert isinstance(paper, Paper) and (paper.number, paper.arxiv) == (85, "2205.14135")


def test_several_papers_make_a_list():
    found = catalog("lightning attention")
    assert isinstance(found, PaperList) and {p.number for p in found} == {80, 88, 192}
    assert catalog("Lightning Attention-2").number == 88        # a whole title beats its words
    assert {p.number for p in catalog("block_sparse_attention")} >= {85, 102, 114}
    assert catalog("sigma_reparam").number == catalog("Sigma-Reparam").number == 3


def test_nothing_found_names_near_matches():
    with pytest.raises(LookupError, match=r"flashattention \(085\)"):
        catalog("flashatention")
    for query in ("194", "zzzzqqqq", "", "  "):
        with pytest.raises(LookupError, match="no paper"):
            catalog(query)
    for query in (8.5, True, ["085"]):
        with pytest.raises(TypeError, match="query"):
            catalog(query)


def test_status_follows_what_is_importable(monkeypatch):
    functions = catalog("099").functions
    assert len(functions) == 3 and catalog("099").status == "planned"
    monkeypatch.setattr(attnkit, functions[0], print, raising=False)
    assert catalog("099").status == "partial" and catalog("099").missing == functions[1:]
    for name in functions[1:]:
        monkeypatch.setattr(attnkit, name, print, raising=False)
    assert catalog("099").status == "available" and catalog("099").missing == ()
    assert catalog("096").status == "no operator" and catalog("096").functions == ()


def test_tables_are_readable_small_and_escaped():
    papers = catalog()
    lines = repr(papers).splitlines()
    assert len(lines) == 195 and max(map(len, lines)) < 130
    assert lines[0].split() == ["no.", "slug", "status", "family", "title"] and lines[-1].startswith("193 papers, ")
    assert lines[85].startswith("085  flashattention ")
    assert len(papers._repr_html_()) <= 10_000 and "first 40" in papers._repr_html_()
    for value in (catalog("085"), papers[83:85]):
        assert "flashattention" in repr(value) and "flashattention" in value._repr_html_()
    nasty = Paper(1, "x", "<script>&", "dense", "", ("f",), ("f",))
    for value in (nasty, PaperList([nasty])):
        assert "<script>" not in value._repr_html_() and "&lt;script&gt;&amp;" in value._repr_html_()


def test_list_behaviour():
    papers = catalog()
    assert papers[0].number == 1 and papers[-1].number == 193 and isinstance(papers[3:5], PaperList)
    assert papers[3:5] == PaperList(list(papers)[3:5]) and papers[0] in papers and papers[:0] == PaperList([])
    assert "0 papers" in repr(papers[:0])
