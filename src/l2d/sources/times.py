"""Times in any usual spelling -> microseconds since 1970, UTC: unix seconds and finer, ISO dates, typed columns."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from l2d.errors import DataError
from l2d.sources.tables import Table, fault

SECOND = 1_000_000
"""Instants are kept in microseconds while sorting: cut to seconds, two clicks of one second could swap places."""

NO_INSTANT = -1
"""Instant of an interaction whose time nobody recorded."""

# A number of at least 1e11 cannot be seconds (the year 5138), so its size tells the unit; 1e11 ms is March 1973.
UNITS = ("s", "ms", "us", "ns")
BOUNDS = np.array([1e11, 1e14, 1e17])
PER_UNIT = {"s": SECOND, "ms": 1000, "us": 1}

ISO = "%Y-%m-%d %H:%M:%S%.f%z", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M%z", "%Y-%m-%d %H:%M", "%Y-%m-%d"
EXPECTED = "unix seconds, milliseconds, or an ISO date such as 2018-02-08 or 2018-02-08T12:30:00Z"


class Clock:
    """Reads a time column batch by batch and holds it to one unit, the one that the first value's size tells."""

    def __init__(self) -> None:
        self.unit: str | None = None

    def instants(self, values: pl.Series, records: NDArray[np.int64], table: Table) -> NDArray[np.int64]:
        """Microseconds since 1970.

        Args:
            values: text, numbers, dates or datetimes. Shape: (n,).
            records: place of each value's record in the table, for messages. Shape: (n,).
            table: where they come from.

        Raises:
            DataError: a value that is missing, unreadable, negative, or of another unit than those before it.
        """
        if values.dtype in (pl.Date, pl.Datetime):
            self.unit = "typed"
            found = values.cast(pl.Datetime("us")).to_physical()
        elif values.dtype.is_numeric():
            found = self._numbers(values, records, table)
        elif values.dtype == pl.String:
            found = self._text(values.str.strip_chars(), records, table)
        else:
            raise DataError(
                "the time column has an impossible type", got=values.dtype, expected=EXPECTED, file=table.path
            )
        self._refuse(found.is_null(), "a time is missing or unreadable", values, records, table)
        self._refuse(found < 0, "a time is negative or before 1970", values, records, table)
        return found.to_numpy()

    def _text(self, text: pl.Series, records: NDArray[np.int64], table: Table) -> pl.Series:
        whole = text.cast(pl.Int64, strict=False)
        if whole.null_count() == 0:
            return self._numbers(whole, records, table)
        numbers = text.cast(pl.Float64, strict=False)
        if numbers.null_count() < len(text) and self.unit != "ISO":
            return self._numbers(numbers, records, table)
        self._agree("ISO", 0, text, records, table)
        return iso(text)

    def _numbers(self, values: pl.Series, records: NDArray[np.int64], table: Table) -> pl.Series:
        if values.dtype.is_integer():
            values = values.cast(pl.Int64, strict=False)
        else:
            values = values.cast(pl.Float64)
            values = values.set(~values.is_finite(), None)
        size = values.drop_nulls().to_numpy()
        units = np.searchsorted(BOUNDS, size, side="right")
        telling = np.flatnonzero(size > 0)  # zero is 1970 in every unit
        if len(telling):
            places = np.flatnonzero(values.is_not_null().to_numpy())[telling]
            first = self.unit or UNITS[units[telling[0]]]
            other = np.flatnonzero(np.array(UNITS)[units[telling]] != first)
            self._agree(first, 0, values, records, table)
            if len(other):
                self._agree(UNITS[units[telling[other[0]]]], int(places[other[0]]), values, records, table)
        return scale(values, self.unit or "s")

    def _agree(self, unit: str, place: int, values: pl.Series, records: NDArray[np.int64], table: Table) -> None:
        """Takes the unit of the first values; refuses another one later, which would scatter the log over centuries."""
        if self.unit not in (None, unit):
            what, got = "times are in different units", f"{values[place]} ({unit}) after {self.unit}"
            cure = "write all times in one unit"
            raise fault(table, int(records[place]), what, got=got, expected=f"all in {self.unit}", cure=cure)
        self.unit = unit

    def _refuse(self, bad: pl.Series, what: str, values: pl.Series, records: NDArray[np.int64], table: Table) -> None:
        if bad.any():
            place = int(bad.arg_max() or 0)
            got, cure = repr(values[place]), "fix or remove the record, or name another --time-column"
            raise fault(table, int(records[place]), what, got=got, expected=EXPECTED, cure=cure)


def scale(values: pl.Series, unit: str) -> pl.Series:
    """Numbers of a unit -> whole microseconds."""
    scaled = values // 1000 if unit == "ns" else values * PER_UNIT[unit]
    return scaled.cast(pl.Int64, strict=False)


def iso(text: pl.Series) -> pl.Series:
    """ISO 8601 dates and times -> microseconds; what has no zone is taken as UTC, what is no date becomes null."""
    plain = (
        text.str.replace(r"^(\d{4})[/.](\d{1,2})[/.](\d{1,2})", "$1-$2-$3")
        .str.replace(r"(\d)[Tt](\d)", "$1 $2")
        .str.replace(r"\s*[Zz]$", "+0000")
        .str.replace(r"\s*(?:UTC)$", "+0000")
        .str.replace(r"(\d:\d\d.*)([+-]\d\d)$", "$1${2}00")
    )
    found = pl.Series(values=[None] * len(text), dtype=pl.Int64)
    for pattern in ISO:
        if found.null_count() == 0:
            break
        parsed = plain.str.to_datetime(pattern, strict=False, time_unit="us")
        found = found.fill_null(parsed.to_physical()) if found.null_count() < len(found) else parsed.to_physical()
    return found
