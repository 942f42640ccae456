"""What every reader takes and gives: a Request in, a Reading out. Ids become integers here, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from l2d.errors import DataError
from l2d.sources.columns import Columns
from l2d.sources.tables import Table

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Request:
    """What to read.

    Args:
        source: a file or a folder.
        items: a file with titles, where it is not found by itself.
        columns: names given by the user.
        progress: told how many records were read, of about how many.
    """

    source: Path
    items: Path | None = None
    columns: Columns = field(default_factory=Columns)
    progress: Progress | None = None


@dataclass(frozen=True)
class Windows:
    """Examples that the source gives ready-made, as places in the log: history `start:end`, target at `end`.

    Args:
        start: first place of each history. Shape: (examples,), int64.
        end: place of each target. Shape: (examples,), int64.
        sizes: number of train, valid and test examples, which follow one another in that order.
    """

    start: NDArray[np.int64]
    end: NDArray[np.int64]
    sizes: tuple[int, int, int]


@dataclass(frozen=True)
class Reading:
    """What a reader found, before anything is cleaned, dropped or sorted.

    Args:
        user_ids: in order of first appearance.
        item_ids: in order of first appearance; of an item file first, where the format says that all its items count.
        user: index into `user_ids`. Shape: (interactions,), int32.
        item: index into `item_ids`. Shape: (interactions,), int32.
        instant: microseconds since 1970, or `NO_INSTANT`. Shape: (interactions,), int64.
        titles: raw titles by item id; an item may be missing.
        timed: whether the source has times at all.
        windows: ready examples, or None for a log.
        notes: what is worth reporting (see `note`).
        facts: files, columns and units that were used.
    """

    user_ids: tuple[str, ...]
    item_ids: tuple[str, ...]
    user: NDArray[np.int32]
    item: NDArray[np.int32]
    instant: NDArray[np.int64]
    titles: dict[str, str]
    timed: bool = True
    windows: Windows | None = None
    notes: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


def note(action: str, what: str, count: int, why: str = "") -> dict[str, Any]:
    """One line of the report: an action (read, kept, dropped, changed, found), how many of what it met, and why."""
    return {"action": action, "what": what, "count": int(count), "why": why}


class Codes:
    """Text ids -> integers in order of first appearance, batch by batch.

    Blanks and one pair of quotes around an id are no part of it. Only distinct ids ever become Python objects.
    """

    def __init__(self, ids: Iterable[str] = ()) -> None:
        self._number: dict[str, int] = {}  # by spelling: ` 7` and `7` lead to one number
        self._ids: list[str] = []
        for text in ids:
            self.number(text)

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def ids(self) -> tuple[str, ...]:
        """Every id so far; its place is its number."""
        return tuple(self._ids)

    def number(self, text: str) -> int:
        """The number of one id, a new one if it is new; -1 for an empty id."""
        number = self._number.get(text)
        if number is None:
            plain = bare(text)
            number = self._number.setdefault(plain, len(self._ids)) if plain else -1
            if number == len(self._ids):
                self._ids.append(plain)
            self._number[text] = number
        return number

    def of(self, column: pl.Series, table: Table) -> NDArray[np.int32]:
        """Numbers of a column, -1 where the id is missing. Shape: (records,).

        Raises:
            DataError: the column's type cannot hold ids.
        """
        text = as_text(column, table)
        distinct = text.drop_nulls().unique(maintain_order=True)
        known = self._number
        numbers = pl.Series(
            [known[value] if value in known else self.number(value) for value in distinct], dtype=pl.Int32
        )
        found = text.replace_strict(distinct, numbers, default=None, return_dtype=pl.Int32)
        return found.fill_null(-1).to_numpy()


def bare(text: str) -> str:
    """An id without surrounding blanks and one pair of double quotes."""
    plain = text.strip()
    quoted = len(plain) > 1 and plain[0] == plain[-1] == '"'
    return plain[1:-1].strip() if quoted else plain


def as_text(column: pl.Series, table: Table) -> pl.Series:
    """A column of ids as text; whole floats (an integer column that once had a gap) become integers.

    Raises:
        DataError: fractions, or a type that is neither text nor number.
    """
    kind = column.dtype
    if kind.is_float():
        whole = column.cast(pl.Int64, strict=False)
        if not (whole.cast(kind) == column).all():
            cure = "write ids as text or integers, or name another column"
            raise DataError(
                f"column {column.name!r} has fractional ids", expected="text or integers", cure=cure, file=table.path
            )
        return whole.cast(pl.String)
    if kind in (pl.String, pl.Categorical, pl.Enum, pl.Null) or kind.is_integer():
        return column.cast(pl.String)
    cure = "write ids as text or integers, or name another column"
    raise DataError(
        f"column {column.name!r} cannot hold ids", got=kind, expected="text or integers", cure=cure, file=table.path
    )


def without_decimals(ids: tuple[str, ...]) -> tuple[tuple[str, ...], NDArray[np.int32]] | None:
    """Undoes `1.0` for `1` where a whole column is spelled so (an integer column that went through floats).

    Returns:
        The shorter ids and, for each old number, the new one; or None when some id is spelled otherwise.
    """
    if not ids or not all(text.endswith(".0") and text[:-2].lstrip("-").isdecimal() for text in ids):
        return None
    codes = Codes()
    numbers = np.array([codes.number(text[:-2]) for text in ids], dtype=np.int32)
    return codes.ids, numbers
