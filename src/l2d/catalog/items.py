"""Items in row order: item_id <-> row <-> title. Duplicate ids and empty titles are refused, shared titles named."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from l2d.artifacts import atomic_file, sha256_text
from l2d.catalog.filters import Filters
from l2d.catalog.finding import Finder
from l2d.catalog.metadata import Metadata, merged, overlaid, shown
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
        row = self.look_up(text)
        if row is None:
            name = str(text)
            near = self.suggest(name)
            hint = "; ".join(repr(title) for title in near) if near else "none is close"
            raise UnknownItem("unknown item", got=repr(name), cure=f"nearest titles: {hint}")
        return row

    def look_up(self, text: str | int) -> int | None:
        """The row meant by an id or a title, as in `find`; None for neither, at no further cost."""
        name = str(text)
        if name.startswith("title:"):
            return self._row_of_title.get(name.removeprefix("title:"))
        if name.startswith("id:"):
            return self._row_of_id.get(name.removeprefix("id:"))
        return self._row_of_id.get(name, self._row_of_title.get(name))

    @cached_property
    def finder(self) -> Finder:
        """What a search reads; made at the first one."""
        return Finder(self.item_ids, self.titles)

    @cached_property
    def filters(self) -> Filters:
        """What a filter reads; it keeps the rows of the last filters."""
        return Filters(self.metadata, len(self))

    def where(self, condition: Mapping[str, Any]) -> NDArray[np.int32]:
        """The rows for which a filter on metadata holds, ascending; not to be written to. See `l2d.catalog.filters`.

        Raises:
            ConfigError: the filter cannot be read, names an unknown column, or compares what cannot be compared.
        """
        return self.filters.rows(condition)

    def described(self, row: int) -> dict[str, Any]:
        """One item's metadata as JSON values, without what is missing; dates as ISO writes them."""
        return shown(self.metadata, row)

    @property
    def text_columns(self) -> set[str]:
        """Metadata columns of text."""
        columns = [] if self.metadata is None else self.metadata.iter_columns()
        return {column.name for column in columns if column.dtype in (pl.String, pl.Categorical, pl.Enum)}

    def suggest(self, text: str, *, n: int = 3) -> list[str]:
        """The titles nearest to a text, best first, compared without case."""
        lowered = {title.lower(): title for title in reversed(self.titles)}
        wanted = text.removeprefix("title:").lower()
        containing = [title for low, title in lowered.items() if wanted and wanted in low][:n]
        close = [lowered[low] for low in difflib.get_close_matches(wanted, list(lowered), n=n, cutoff=0.5)]
        return list(dict.fromkeys(close + sorted(containing, key=len)))[:n]

    def extended(self, titles: Mapping[str, str], metadata: Mapping[str, Metadata] | None = None) -> Catalog:
        """This catalogue with more items behind its own; metadata that is not given is missing.

        Args:
            titles: by new id.
            metadata: by id, of new and of old items; see `with_metadata`.

        Raises:
            DataError: an id that is there already, an empty id or title, or impossible metadata.
        """
        grown = self
        if titles:
            padded = None if self.metadata is None else pl.concat([self.metadata, self.metadata.clear(len(titles))])
            grown = Catalog((*self.item_ids, *titles), (*self.titles, *titles.values()), padded)
        return grown.with_metadata(metadata) if metadata else grown

    def with_metadata(self, metadata: Mapping[str, Metadata]) -> Catalog:
        """This catalogue with some metadata changed; a column that no item had is a new one.

        Args:
            metadata: JSON values by id; what an item's does not name stays, None takes a value away.

        Raises:
            UnknownItem: no such id.
            DataError: a value that is no metadata, of another type than its column, or too much of it.
        """
        changes = {self.row(item): values for item, values in metadata.items() if values}
        return self._described_by(merged(self.metadata, len(self), changes)) if changes else self

    def overlaid(self, later: pl.DataFrame) -> Catalog:
        """This catalogue with the metadata of some items exchanged.

        Args:
            later: `item_id`, and in the other columns all that is known of these items.

        Raises:
            UnknownItem: no such id.
        """
        rows = self.rows(later["item_id"])
        return self._described_by(overlaid(self.metadata, len(self), rows, later.drop("item_id")))

    def _described_by(self, metadata: pl.DataFrame | None) -> Catalog:
        """The same items; what was made of ids and titles is taken along, since a search index takes long to make."""
        same = Catalog(self.item_ids, self.titles, metadata)
        kept = ("_row_of_title", "title_group", "integer_ids", "fingerprint", "finder")
        same.__dict__.update({name: self.__dict__[name] for name in kept if name in self.__dict__})
        return same

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
