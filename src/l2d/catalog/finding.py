"""A search of the catalogue for a page: ids, beginnings, words, parts of titles, then what is spelt nearly so."""

from __future__ import annotations

import bisect
import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from l2d.errors import ConfigError

LONGEST_QUERY = 200
"""Characters of a query."""

WORD = r"[\p{L}\p{N}]+"
ALIKE = 0.34
"""Least share of common letter pairs (Dice) at which two words pass for the same one misspelt."""

NEAREST_WORDS = 50
"""Known words that a misspelt one is taken for, at most."""

CLOSE = 1_000
"""Titles spelt nearly so that are looked at."""

LAST = "\U0010ffff"
PAIR, END = 1 << 21, ord("\n")

Hits = NDArray[np.int64]


def folded(text: str) -> str:
    """Without case, accents and superfluous blanks: what two spellings of one title share."""
    if not text.isascii():
        text = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return " ".join(text.casefold().split())


class Postings:
    """For each key, ascending, the places that it occurs at.

    Args:
        keys: one per occurrence. Shape: (occurrences,).
        places: where it occurs. Shape: (occurrences,), int32.
    """

    def __init__(self, keys: NDArray[np.int64], places: NDArray[np.int32]) -> None:
        order = np.argsort(keys, kind="stable")
        self.keys, starts = np.unique(keys[order], return_index=True)
        self._starts = np.append(starts, len(keys))
        self._places = places[order]

    def of(self, first: int, last: int) -> NDArray[np.int32]:
        """The places of a run of keys, by their numbers; a place may come twice."""
        return self._places[self._starts[first] : self._starts[last]]

    def at(self, key: int) -> NDArray[np.int32]:
        """The places of one key."""
        number = int(np.searchsorted(self.keys, key))
        there = number < len(self.keys) and self.keys[number] == key
        return self.of(number, number + 1) if there else self._places[:0]


class Sorted:
    """Texts in order, with the row of each: beginnings are found by bisection.

    Args:
        texts: in row order.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        order = sorted(range(len(texts)), key=texts.__getitem__)
        self._texts, self._rows = [texts[row] for row in order], np.array(order, dtype=np.int64)

    def equal(self, text: str) -> Hits:
        """Rows of that very text."""
        return self._rows[bisect.bisect_left(self._texts, text) : bisect.bisect_right(self._texts, text)]

    def beginning(self, text: str) -> Hits:
        """Rows of texts that begin so."""
        first, last = span(self._texts, text)
        return self._rows[first:last]


def span(texts: Sequence[str], beginning: str) -> tuple[int, int]:
    """Where among ordered texts those that begin so stand."""
    return bisect.bisect_left(texts, beginning), bisect.bisect_left(texts, beginning + LAST)


class Finder:
    """Searches ids and titles, without case and accents.

    Args:
        item_ids: in row order.
        titles: in row order.
    """

    def __init__(self, item_ids: Sequence[str], titles: Sequence[str]) -> None:
        plain = [folded(title) for title in titles]
        self._ids, self._titles = Sorted([folded(item) for item in item_ids]), Sorted(plain)
        self._texts = pl.Series("text", plain, dtype=pl.String)
        owner = np.arange(len(plain), dtype=np.int32)
        words = pl.DataFrame({"owner": owner, "word": self._texts.str.extract_all(WORD)}).explode("word")
        words = words.drop_nulls().unique(maintain_order=True)
        self._words: list[str] = words["word"].unique().sort().to_list()
        number = words["word"].cast(pl.Enum(self._words)).to_physical().cast(pl.Int64)
        self._having = Postings(number.to_numpy(), words["owner"].to_numpy())

    def __len__(self) -> int:
        return len(self._texts)

    @cached_property
    def _pairs(self) -> tuple[Postings, NDArray[np.float64]]:
        """The words that each pair of letters stands in, their ends being letters; and how many pairs each word has."""
        text = "\n".join(["", *self._words, ""]).encode("utf-32-le")
        letters = np.frombuffer(text, dtype=np.uint32).astype(np.int64)
        ends = letters == END
        key = letters[:-1] * PAIR + letters[1:]
        word = (np.cumsum(ends) - 1)[:-1]
        once = np.unique(np.stack([word, key]), axis=1)
        sizes = np.bincount(once[0], minlength=len(self._words)).astype(np.float64)
        return Postings(once[1], once[0].astype(np.int32)), sizes

    def find(self, query: str, popularity: NDArray[np.integer[Any]], k: int) -> list[int]:
        """The rows that a query means, best first.

        First the id itself, then the title itself, titles that begin so, titles with words that all begin so, titles
        that hold it somewhere, ids that begin so; only where these are fewer than k, titles with words spelt nearly so.
        Among equals the more popular comes first, then the smaller row. An empty query means all items.

        Args:
            query: as typed so far.
            popularity: of each item. Shape: (items,).
            k: list length.

        Raises:
            ConfigError: k below 1, or a query longer than `LONGEST_QUERY` characters.
        """
        if k < 1:
            raise ConfigError("k is too small", got=k, expected="at least 1")
        if len(query) > LONGEST_QUERY:
            raise ConfigError("the query is too long", got=len(query), expected=f"at most {LONGEST_QUERY} characters")
        found: dict[int, None] = {}
        for hits in self._ranks(folded(query)):
            found.update(dict.fromkeys(_popular(hits, popularity, k + len(found))))
            if len(found) >= k:
                break
        return list(found)[:k]

    def _ranks(self, wanted: str) -> Iterator[Hits]:
        """Ever weaker matches, each computed when it is asked for."""
        if not wanted:
            yield np.arange(len(self))
            return
        yield self._ids.equal(wanted)
        yield self._titles.equal(wanted)
        yield self._titles.beginning(wanted)
        words = re.findall(r"[^\W_]+", wanted)
        yield self._with_all(words)
        yield self._texts.str.contains(wanted, literal=True).arg_true().to_numpy().astype(np.int64)
        yield self._ids.beginning(wanted)
        yield from self._close(words)

    def _with_all(self, words: list[str]) -> Hits:
        """Rows of titles in which each of some words begins a word."""
        common: Hits | None = None
        for word in words:
            rows = np.unique(self._having.of(*span(self._words, word))).astype(np.int64)
            common = rows if common is None else np.intersect1d(common, rows, assume_unique=True)
        return np.empty(0, np.int64) if common is None else common

    def _close(self, words: list[str]) -> Iterator[Hits]:
        """Rows of titles that share misspelt words with a query, the likest first; equally like ones together."""
        if not words or not self._words:
            return
        likeness = np.zeros(len(self))
        for word in words:
            best = np.zeros(len(self))
            near, like = self._near(word)
            for number, value in zip(near.tolist(), like.tolist(), strict=True):
                places = self._having.of(number, number + 1)
                best[places] = np.maximum(best[places], value)
            likeness += best / len(words)
        hits = np.flatnonzero(likeness >= ALIKE)
        hits = hits[np.argsort(-likeness[hits], kind="stable")][:CLOSE]
        yield from np.split(hits, np.flatnonzero(np.diff(likeness[hits])) + 1)

    def _near(self, word: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Numbers of the known words that a word may be meant for, and how like they are (Dice over letter pairs)."""
        postings, sizes = self._pairs
        letters = [END, *(ord(letter) for letter in word), END]
        keys = {first * PAIR + second for first, second in pairwise(letters)}
        common = np.zeros(len(sizes))
        for key in keys:
            common[postings.at(key)] += 1
        like = 2 * common / (sizes + len(keys))
        near = np.flatnonzero(like >= ALIKE)
        near = near[np.argsort(-like[near], kind="stable")][:NEAREST_WORDS]
        return near, like[near]


def _popular(hits: Hits, popularity: NDArray[np.integer[Any]], k: int) -> list[int]:
    """The k most popular rows, the smaller row first among equals."""
    weight = popularity[hits].astype(np.int64) * len(popularity) - hits
    if len(hits) > k:
        best = np.argpartition(-weight, k - 1)[:k]
        hits, weight = hits[best], weight[best]
    return hits[np.argsort(-weight, kind="stable")].tolist()
