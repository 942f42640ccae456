"""The catalogue: item_id <-> row <-> title. Duplicate ids and empty titles are refused, shared titles are named."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from l2d.artifacts import atomic_file, sha256_text
from l2d.errors import DataError, UnknownItem

CANONICAL_INTEGER = re.compile(r"0|-?[1-9][0-9]*")


@dataclass(frozen=True)
class Catalog:
    """Items in row order.

    Args:
        item_ids: the user's ids as text, unique, one per row.
        titles: what the LLM reads and writes, one per row, never empty. Several rows may share a title.
        metadata: further columns in row order, or None.

    Raises:
        DataError: no items, a repeated or empty id, an empty title, or columns of different length.
    """

    item_ids: tuple[str, ...]
    titles: tuple[str, ...]
    metadata: pl.DataFrame | None = None

    def __post_init__(self) -> None:
        if not self.item_ids:
            raise DataError(
                "the catalogue is empty", expected="at least one item", cure="check the item file and the filters"
            )
        lengths = {len(self.item_ids), len(self.titles)} | (
            {len(self.metadata)} if self.metadata is not None else set()
        )
        if len(lengths) > 1:
            raise DataError(
                "catalogue columns differ in length", got=sorted(lengths), cure="give one title per item id"
            )
        if len(self._row_of_id) != len(self.item_ids):
            twice = next(item for row, item in enumerate(self.item_ids) if self._row_of_id[item] != row)
            raise DataError(
                "an item id occurs twice", got=repr(twice), expected="unique ids", cure="merge or rename the rows"
            )
        for row, title in enumerate(self.titles):
            if not title.strip() or not self.item_ids[row]:
                raise DataError(
                    f"item {self.item_ids[row]!r} has no title or no id",
                    expected="non-empty text",
                    cure="drop the item or give it a title",
                )

    def __len__(self) -> int:
        return len(self.item_ids)

    @cached_property
    def _row_of_id(self) -> dict[str, int]:
        return {item: row for row, item in enumerate(self.item_ids)}

    @cached_property
    def _row_of_title(self) -> dict[str, int]:
        rows: dict[str, int] = {}
        for row, title in enumerate(self.titles):
            rows.setdefault(title, row)
        return rows

    @cached_property
    def title_group(self) -> NDArray[np.int32]:
        """For each row the first row with the same title. Shape: (items,)."""
        return np.array([self._row_of_title[title] for title in self.titles], dtype=np.int32)

    @cached_property
    def integer_ids(self) -> bool:
        """Whether every id is an integer in its usual spelling, so that JSON may show it as a number."""
        return all(CANONICAL_INTEGER.fullmatch(item) for item in self.item_ids)

    @cached_property
    def fingerprint(self) -> str:
        """Digest of ids and titles in row order; metadata does not change what the LLM sees."""
        return sha256_text(*self.item_ids, *self.titles)

    def item_id(self, row: int) -> str | int:
        """The id of a row as the user wrote it: an int where all ids are integers."""
        item = self.item_ids[row]
        return int(item) if self.integer_ids else item

    def row(self, item_id: str | int) -> int:
        """The row of an id.

        Raises:
            UnknownItem: no such id.
        """
        row = self._row_of_id.get(str(item_id))
        if row is None:
            raise UnknownItem("unknown item id", got=repr(item_id), cure="check the id against the catalogue")
        return row

    def rows(self, item_ids: Iterable[str | int]) -> NDArray[np.int32]:
        """The rows of several ids. Shape: (ids,)."""
        return np.array([self.row(item) for item in item_ids], dtype=np.int32)

    def find(self, text: str | int) -> int:
        """The row meant by an id or a title.

        An id wins over an equal title; `id:` or `title:` in front decides. A title that several items share means
        the first of them in row order.

        Raises:
            UnknownItem: neither; the message suggests the nearest titles.
        """
        name = str(text)
        if name.startswith("title:"):
            row = self._row_of_title.get(name.removeprefix("title:"))
        elif name.startswith("id:"):
            row = self._row_of_id.get(name.removeprefix("id:"))
        else:
            row = self._row_of_id.get(name, self._row_of_title.get(name))
        if row is None:
            near = self.suggest(name)
            hint = "; ".join(repr(title) for title in near) if near else "none is close"
            raise UnknownItem("unknown item", got=repr(name), cure=f"nearest titles: {hint}")
        return row

    def suggest(self, text: str, *, n: int = 3) -> list[str]:
        """The titles nearest to a text, best first, compared without case."""
        lowered = {title.lower(): title for title in reversed(self.titles)}
        wanted = text.removeprefix("title:").lower()
        containing = [title for low, title in lowered.items() if wanted and wanted in low][:n]
        close = [lowered[low] for low in difflib.get_close_matches(wanted, list(lowered), n=n, cutoff=0.5)]
        return list(dict.fromkeys(close + sorted(containing, key=len)))[:n]

    def extended(self, titles: Mapping[str, str]) -> Catalog:
        """This catalogue with more items behind its own, whose metadata is missing.

        Args:
            titles: by new id.

        Raises:
            DataError: an id that is there already, or an empty id or title.
        """
        if not titles:
            return self
        metadata = self.metadata
        if metadata is not None:
            metadata = pl.concat([metadata, metadata.clear(len(titles))])
        return Catalog((*self.item_ids, *titles), (*self.titles, *titles.values()), metadata)

    def save(self, path: Path) -> None:
        """Writes the catalogue as one Parquet file, atomically."""
        frame = pl.DataFrame(
            {"item_id": self.item_ids, "title": self.titles}, schema={"item_id": pl.String, "title": pl.String}
        )
        if self.metadata is not None:
            frame = frame.hstack(self.metadata)
        with atomic_file(path) as temporary:
            frame.write_parquet(temporary)

    @classmethod
    def load(cls, path: Path) -> Catalog:
        """Reads what `save` wrote."""
        return cls.from_frame(pl.read_parquet(path))

    @classmethod
    def from_frame(cls, frame: pl.DataFrame) -> Catalog:
        """A frame with `item_id` and `title`; further columns become metadata."""
        rest = frame.drop("item_id", "title")
        return cls(
            tuple(frame["item_id"].cast(pl.String).to_list()),
            tuple(frame["title"].to_list()),
            rest if rest.width else None,
        )

    @classmethod
    def from_titles(cls, titles: Sequence[str]) -> Catalog:
        """A catalogue whose ids are the row numbers."""
        return cls(tuple(str(row) for row in range(len(titles))), tuple(titles))
