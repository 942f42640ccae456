"""What is known of items beside their titles: columns in row order, read from JSON values and shown as such."""

from __future__ import annotations

import datetime
import decimal
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from polars.exceptions import PolarsError

from l2d.errors import DataError

Metadata = Mapping[str, Any]
"""One item's metadata: text, numbers, truth values or lists of one of these, by column; None for not known."""

MOST_COLUMNS = 200
"""Columns that a catalogue may have."""

LONGEST_NAME = 100
LONGEST_TEXT = 20_000
LONGEST_LIST = 1_000
LARGEST = 1 << 53
"""Whole numbers up to it are the same to every reader of JSON, and as floats."""

RESERVED = ("item_id", "title", "vector")
"""Names of columns that are not metadata."""

KINDS: Mapping[str, Any] = {
    "text": pl.String(),
    "whole number": pl.Int64(),
    "number": pl.Float64(),
    "truth value": pl.Boolean(),
}


def shown(frame: pl.DataFrame | None, row: int) -> dict[str, Any]:
    """One item's metadata as JSON values; what is missing is left out."""
    if frame is None:
        return {}
    return {name: plain(value) for name, value in frame.row(row, named=True).items() if value is not None}


def plain(value: Any) -> Any:
    """A value as JSON has it: dates as ISO writes them, and no nan."""
    if isinstance(value, datetime.date | datetime.time):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [plain(part) for part in value]
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def overlaid(
    frame: pl.DataFrame | None, items: int, rows: NDArray[np.integer[Any]], later: pl.DataFrame
) -> pl.DataFrame:
    """A catalogue's metadata with some rows exchanged; columns that are new are missing elsewhere.

    Args:
        frame: columns in row order, of the first items at least; None for none.
        items: catalogue size.
        rows: which rows are exchanged. Shape: (n,).
        later: their columns; one that is not among them stays.
    """
    place = np.arange(items)
    place[rows] = items + np.arange(len(rows))
    columns, known = [], [] if frame is None else frame.columns
    for name in dict.fromkeys([*known, *later.columns]):
        old = frame[name] if frame is not None and name in known else pl.Series(name, [], dtype=later[name].dtype)
        padded = old.extend_constant(None, items - len(old)) if len(old) < items else old
        if name in later.columns:
            padded = pl.concat([padded.cast(later[name].dtype), later[name]]).gather(place)
        columns.append(padded)
    return pl.DataFrame(columns)


def merged(frame: pl.DataFrame | None, items: int, changes: Mapping[int, Metadata]) -> pl.DataFrame | None:
    """A catalogue's metadata with some values set; what a change does not name stays, None takes a value away.

    Args:
        frame: columns in row order, of the first items at least; None for none.
        items: catalogue size.
        changes: JSON values by row.

    Raises:
        DataError: a value that is no metadata, of another type than its column, or too much of it.
    """
    given: dict[str, dict[int, Any]] = {}
    for row, record in changes.items():
        for name, value in record.items():
            given.setdefault(check_name(name), {})[row] = value
    known = [] if frame is None else frame.columns
    if len({*known, *given}) > MOST_COLUMNS:
        raise DataError(
            "there are too many metadata columns", got=len({*known, *given}), expected=f"at most {MOST_COLUMNS}",
            cure="leave some out",
        )  # fmt: skip
    for name, values in given.items():
        old = frame[name].dtype if frame is not None and name in frame.columns else None
        column = typed(name, list(values.values()), old)
        if column is not None:
            frame = overlaid(frame, items, np.fromiter(values, np.int64, len(values)), column.to_frame())
    return frame


def check_name(name: Any) -> str:
    """A metadata column's name.

    Raises:
        DataError: it cannot be one.
    """
    if not isinstance(name, str) or not name.strip() or name in RESERVED or len(name) > LONGEST_NAME or not whole(name):
        raise DataError(
            "impossible name of a metadata column", got=repr(name)[: LONGEST_NAME + 2],
            expected=f"text of at most {LONGEST_NAME} characters, and none of {', '.join(RESERVED)}",
        )  # fmt: skip
    return name


def whole(text: str) -> bool:
    """Whether a text can be written: JSON may escape half a character, which no file can hold."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def typed(name: str, values: Sequence[Any], dtype: pl.DataType | None) -> pl.Series | None:
    """JSON values as a column.

    Args:
        name: of the column.
        values: None where nothing is known.
        dtype: of the column so far, which whole numbers leave when a broken one comes; None for a new one.

    Returns:
        The values; None for a new column that has none.

    Raises:
        DataError: values of several types, or not of that type.
    """
    lists = any(isinstance(value, list | tuple) for value in values)
    inside = dtype.inner if isinstance(dtype, pl.List | pl.Array) else dtype  # type: ignore[attr-defined]
    if dtype is not None and lists != isinstance(dtype, pl.List | pl.Array) and any(_there(values)):
        raise _unlike(name, "a list" if lists else "a single value", dtype)
    flat = list(_there(_flattened(name, values) if lists else values))
    kinds = {kind_of(name, value) for value in flat}
    kind = "number" if kinds == {"number", "whole number"} else next(iter(kinds), None)
    if len(kinds) > 1 and kind != "number":
        raise DataError(
            f"the metadata column {name!r} has values of several types", got=" and ".join(sorted(kinds)),
            expected="one type", cure="give all of its values one type",
        )  # fmt: skip
    if kind is None and dtype is None and not lists:
        return None
    single = _fitting(name, kind, inside, flat)
    whole_type = pl.List(single) if lists or isinstance(dtype, pl.List | pl.Array) else single
    return _built(name, values, whole_type, single)


def _there(values: Iterable[Any]) -> Iterable[Any]:
    return (value for value in values if value is not None)


def _flattened(name: str, values: Sequence[Any]) -> Iterable[Any]:
    for value in _there(values):
        if not isinstance(value, list | tuple):
            raise DataError(
                f"the metadata column {name!r} has lists and single values", got=repr(value)[:60],
                expected="lists alone, or none", cure="put single values into lists of one",
            )  # fmt: skip
        if len(value) > LONGEST_LIST:
            raise DataError(
                f"a list in the metadata column {name!r} is too long", got=len(value),
                expected=f"at most {LONGEST_LIST} values", cure="shorten it",
            )  # fmt: skip
        yield from value


def kind_of(name: str, value: Any) -> str:
    """What a single metadata value is: a key of `KINDS`.

    Raises:
        DataError: it is none.
    """
    if isinstance(value, bool):
        return "truth value"
    if isinstance(value, int) and abs(value) <= LARGEST:
        return "whole number"
    if isinstance(value, float) and math.isfinite(value):
        return "number"
    if isinstance(value, str) and len(value) <= LONGEST_TEXT and whole(value):
        return "text"
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        got: object = f"a text of {len(value)} characters"
    else:
        got = repr(value)[:60] if isinstance(value, str | int | float) and not _huge(value) else type(value).__name__
    raise DataError(
        f"a value of the metadata column {name!r} cannot be kept", got=got,
        expected=f"text of at most {LONGEST_TEXT} characters, a number, true or false, or a list of such",
    )  # fmt: skip


def _huge(value: object) -> bool:
    """Whether writing it down would take long."""
    return isinstance(value, int) and value.bit_length() > 100


def _fitting(name: str, kind: str | None, dtype: Any, values: Sequence[Any]) -> Any:
    """The type of a column that had one type and gets values of some kind."""
    if kind is None:
        return dtype if dtype is not None else pl.String()
    if dtype is None or dtype == pl.Null:
        return KINDS[kind]
    numbers = kind in ("whole number", "number")
    if dtype.is_integer() and numbers:
        return pl.Int64() if all(float(value).is_integer() for value in values) else pl.Float64()
    if (dtype.is_float() or dtype.is_decimal()) and numbers:
        return pl.Float64()
    if dtype == pl.Boolean and kind == "truth value":
        return dtype
    if kind == "text" and dtype in (pl.String, pl.Categorical, pl.Enum):
        return pl.String()
    if kind == "text" and dtype.is_temporal():
        return dtype
    raise _unlike(name, f"a {kind}", dtype)


def _built(name: str, values: Sequence[Any], dtype: Any, single: Any) -> pl.Series:
    if single.is_temporal():
        read = datetime.date.fromisoformat if single == pl.Date else datetime.datetime.fromisoformat
        try:
            values = [None if value is None else read(value) for value in values]
        except (TypeError, ValueError) as error:
            raise _unlike(name, "a text that is no ISO date", dtype) from error
    try:
        plain = [list(value) if isinstance(value, tuple) else value for value in values]
        return pl.Series(name, plain, dtype, strict=False)
    except (PolarsError, TypeError, OverflowError, ValueError) as error:
        raise _unlike(name, "a value of another type", dtype) from error


def _unlike(name: str, got: str, dtype: Any) -> DataError:
    return DataError(
        f"the metadata column {name!r} has another type", got=got, expected=str(dtype),
        cure="give the value that type, or use another column name",
    )  # fmt: skip
