"""The search of the catalogue: ranks and order against a plain loop, and what fingers do to titles."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l2d.catalog import Catalog
from l2d.catalog.finding import LONGEST_QUERY, Finder, folded
from l2d.errors import ConfigError
from l2d.recommender import Recommender
from shop import CATALOG, ok

TITLES = (
    "Blue Train", "Kind of Blue", "Beyoncé: Lemonade", "Straße der Träume", "blue train (live)", "Giant Steps",
    "The Köln Concert", "千と千尋の神隠し", "!!!", "1999", "A Love Supreme", "Live at the Blue Note",
)  # fmt: skip
FINDER = Finder([f"b{row}" for row in range(len(TITLES))], TITLES)
ALIKE = np.zeros(len(TITLES), np.int64)


def found(query: str, popularity: np.ndarray = ALIKE, k: int = 20) -> list[str]:
    return [TITLES[row] for row in FINDER.find(query, popularity, k)]


def plain(text: str) -> str:
    bare = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return " ".join(bare.casefold().split())


def rank(query: str, item: str, title: str) -> int | None:
    """The first kind of match that holds, by the docstring's words; None for none."""
    wanted, item, title = plain(query), plain(item), plain(title)
    words, asked = re.findall(r"[^\W_]+", title), re.findall(r"[^\W_]+", wanted)
    matches = (
        wanted == item,
        wanted == title,
        title.startswith(wanted),
        bool(asked) and all(any(word.startswith(part) for word in words) for part in asked),
        wanted in title,
        item.startswith(wanted),
    )
    return next((place for place, match in enumerate(matches) if match), None)


letters = st.text(st.sampled_from("abAB é1.-ßİ"), max_size=6)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(letters, letters, st.integers(0, 3)), min_size=1, max_size=15), letters.filter(str.strip))
def test_matches_come_in_the_order_of_a_plain_loop(items: list[tuple[str, str, int]], query: str) -> None:
    ids, titles, popularity = zip(*items, strict=True)
    ranks = [rank(query, item, title) for item, title in zip(ids, titles, strict=True)]
    expected = sorted(
        (row for row, place in enumerate(ranks) if place is not None),
        key=lambda row: (ranks[row], -popularity[row], row),
    )
    listed = Finder(ids, titles).find(query, np.array(popularity), len(items) + 1)
    assert listed[: len(expected)] == expected
    assert len(set(listed)) == len(listed)
    for k in (1, 3):
        assert Finder(ids, titles).find(query, np.array(popularity), k) == listed[:k]


def test_case_accents_and_blanks_do_not_matter() -> None:
    assert found("BEYONCE lem")[0] == "Beyoncé: Lemonade"
    assert found("koln")[0] == found("Köln")[0] == "The Köln Concert"
    assert found("strasse  DER traume") == ["Straße der Träume"]
    assert found("神隠し")[0] == "千と千尋の神隠し"
    assert found("!!")[0] == "!!!"
    assert folded("  \uff26ull\tWidth ") == "full width"


def test_a_page_sees_its_query_come_together() -> None:
    assert found("b4")[0] == "blue train (live)"
    assert found("blue train") == ["Blue Train", "blue train (live)", *found("blue train")[2:]]
    assert set(found("blue")) == {"Blue Train", "blue train (live)", "Kind of Blue", "Live at the Blue Note"}
    assert set(found("train li")) >= {"blue train (live)"}
    assert found("ove Supr")[0] == "A Love Supreme"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("gaint steps", "Giant Steps"), ("lemonad beyonse", "Beyoncé: Lemonade"), ("love suprem", "A Love Supreme"),
        ("konzert koeln", "The Köln Concert"), ("blu trane", "Blue Train"),
    ],
)  # fmt: skip
def test_misspelt_titles_are_found(typed: str, meant: str) -> None:
    assert found(typed)[0] == meant


def test_nothing_is_like_nonsense_and_an_empty_query_means_the_most_popular() -> None:
    assert found("qqqqxxxx") == []
    popularity = np.arange(len(TITLES))
    assert found("", popularity, 3) == list(reversed(TITLES))[:3]
    assert found(" \t", popularity, 3) == list(reversed(TITLES))[:3]
    assert found("blue", popularity)[0] == "blue train (live)"


def test_impossible_searches_are_refused_and_strange_ones_answered() -> None:
    with pytest.raises(ConfigError, match="k is too small"):
        found("x", k=0)
    with pytest.raises(ConfigError, match="too long"):
        found("x" * (LONGEST_QUERY + 1))
    for strange in ("\ud800", "\x00", "\n", "[a-z", "\\", "%", "ﬃ" * LONGEST_QUERY, "́"):
        found(strange)


@pytest.mark.parametrize("titles", [("!!!",), ("a",), ("\n",), ("x y", "x y")])
def test_catalogues_of_odd_titles_can_be_searched(titles: tuple[str, ...]) -> None:
    finder = Finder([str(row) for row in range(len(titles))], titles)
    for query in ("", "a", "!!!", "zz", "0"):
        finder.find(query, np.zeros(len(titles), np.int64), 5)


def test_metadata_that_changes_leaves_the_index_alone() -> None:
    catalog = Catalog.from_titles(["a", "b"])
    finder = catalog.finder
    changed = catalog.with_metadata({"0": {"x": 1}})
    assert changed.finder is finder
    assert changed.fingerprint == catalog.fingerprint
    assert changed.extended({"9": "new"}).finder.find("new", np.zeros(3, np.int64), 1) == [2]


def test_a_run_is_searched_with_its_entries_as_popularity(run: Path) -> None:
    opened = Recommender.load(run, device="cpu", verify=False)
    counts = np.bincount(opened.entries.row, minlength=len(CATALOG))
    best = np.lexsort((np.arange(len(CATALOG)), -counts))[:5]
    listed = opened.find_items("", k=5)
    assert [one.item_id for one in listed] == [CATALOG.item_id(int(row)) for row in best]
    assert [one.entries for one in listed] == counts[best].tolist()
    title = CATALOG.titles[7]
    assert opened.find_items(title.upper())[0].title == title
    lines = ok("items", "find", run, title, "-k", 3, "--json").out.splitlines()
    assert json.loads(lines[0])["title"] == title
    assert [json.loads(line)["item_id"] for line in ok("items", "list", run, "-k", 5, "--json").out.splitlines()] == [
        one.item_id for one in listed
    ]
    assert title in ok("items", "find", run, title).out
    assert "nothing" in ok("items", "find", run, "qqqqxxxx").out
