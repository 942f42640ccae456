"""The record of a comparison as the report reads it: any figure may be absent, none is made up."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from l2d.errors import DataError

METRIC = "hr@10"
"""The metric of the plots."""

LEVEL = 0.05
"""Corrected p below which a difference counts as found."""


@dataclass(frozen=True)
class Row:
    """One contestant.

    Args:
        name: as it was called on the command line.
        kind: latent, language, peer or baseline.
        data: its part of the record.
    """

    name: str
    kind: str
    data: Mapping[str, Any]

    def number(self, *path: str) -> float | None:
        """The figure under some keys; None where it is absent or not finite."""
        return number(self.data, *path)

    def interval(self, metric: str = METRIC) -> tuple[float, float] | None:
        """The interval of a mean, (low, high)."""
        return pair(find(self.data, "intervals", metric))

    def difference(self, metric: str = METRIC) -> Mapping[str, Any]:
        """This row minus the first: difference, low, high, p_holm; empty for the first itself."""
        return mapping(find(self.data, "versus", metric))

    def verdict(self, metric: str = METRIC) -> str | None:
        """`better` or `worse` than the first row, `open` where chance explains the difference, None if not tested."""
        difference, chance = number(self.difference(metric), "difference"), number(self.difference(metric), "p_holm")
        if difference is None or chance is None:
            return None
        if chance >= LEVEL or difference == 0:
            return "open"
        return "better" if difference > 0 else "worse"

    @property
    def sample(self) -> Row:
        """The same contestant with quality on the users that all rows answered."""
        return Row(self.name, self.kind, {**self.data, **mapping(self.data.get("sample"))})


@dataclass(frozen=True)
class Record:
    """All contestants in the order given, and what was the same for all.

    Args:
        rows: the contestants, the one that the others are compared with first.
        data: the whole record.
    """

    rows: tuple[Row, ...]
    data: Mapping[str, Any]

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Record:
        """Reads a record.

        Raises:
            DataError: it has no rows.
        """
        rows = mapping(data.get("rows"))
        if not rows:
            cure = "make the record with `l2d compare RUN --json FILE`"
            raise DataError("this is no record of a comparison", got="no rows", expected="rows by name", cure=cure)
        return cls(tuple(Row(str(n), str(mapping(r).get("kind", "other")), mapping(r)) for n, r in rows.items()), data)

    @property
    def first(self) -> Row:
        """The row that the others are compared with."""
        return next((row for row in self.rows if row.name == self.data.get("against")), self.rows[0])

    @property
    def beam(self) -> Row | None:
        """The beam search of this package, if it took part."""
        return next((row for row in self.rows if row.name == "beam"), None)

    @property
    def mixed(self) -> bool:
        """Whether some rows were judged on fewer users than others."""
        return len({row.number("users") for row in self.rows}) > 1

    @property
    def excludes_seen(self) -> bool:
        """Whether the histories' own items were left out; a record that does not say it left out nothing."""
        return self.data.get("exclude_seen") is True

    @property
    def shared(self) -> tuple[Row, ...]:
        """The rows with their quality on the same users, as far as the record has it."""
        return tuple(row.sample for row in self.rows) if self.mixed else self.rows

    def points(self, curve: str) -> Sequence[Mapping[str, Any]]:
        """The measured points of one curve; none if it was not measured."""
        points = find(self.data, "curves", curve, "points")
        return [mapping(point) for point in points] if isinstance(points, list | tuple) else []


def find(data: object, *path: str) -> object:
    """What lies under some keys, None where one of them is missing."""
    for key in path:
        data = mapping(data).get(key)
    return data


def number(data: object, *path: str) -> float | None:
    """The finite number under some keys, None where there is none."""
    value = find(data, *path)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def mapping(value: object) -> Mapping[str, Any]:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def pair(value: object) -> tuple[float, float] | None:
    """Two finite numbers, or None."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        return None
    low, high = (number({"value": part}, "value") for part in value)
    return None if low is None or high is None else (low, high)
