"""Filters on item metadata: a small language in JSON -> the rows that it holds for.

`{"brand": "Sony"}` is equality, `{"brand": ["Sony", "LG"]}` one of several, `{"price": {"gte": 5, "lt": 20}}` a range,
`{"genre": {"not": "jazz"}}` anything else. Of several keys all must hold. A column of lists holds where any of its
values does; a missing value never does, but for `not`. Dates are text, as ISO writes them.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Discriminator, PlainValidator, Tag, TypeAdapter, ValidationError
from pydantic import Field as ModelField

from l2d.errors import ConfigError

MOST_VALUES = 1_000
"""Values in one filter, over all of its columns."""

MOST_COLUMNS = 50
"""Columns that one filter may name."""

LONGEST_TEXT = 1_000
"""Characters of a text in a filter."""

LARGEST = 1 << 53
"""Numbers below it in magnitude are compared exactly with whole and with broken ones (and are safe in JSON)."""

KEPT = 64
"""Filters whose rows are kept."""

NAMED = 20
"""Columns that an error names."""

Value = bool | float | str
Kind = Literal["text", "number", "truth value"]
SEVERAL = list | tuple | set | frozenset
EXPECTED = '{"column": value}, {"column": [values]} or {"column": {"gt"|"gte"|"lt"|"lte"|"not": value}}'
COMPARISONS: Mapping[str, Callable[[pl.Series, Value], pl.Series]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}


def _value(given: Any) -> Value:
    """One value of a filter; whole numbers become broken ones, so that 5 and 5.0 are one."""
    if isinstance(given, bool):
        return given
    if isinstance(given, int | float):
        if not abs(given) < LARGEST:  # nan is not, either
            raise ValueError(f"a number is too large: expected less than {LARGEST} in magnitude")
        return float(given) + 0.0  # -0.0 becomes 0.0
    if not isinstance(given, str):
        raise ValueError(f"a value is {_named(given)}: expected text, a number, true or false")
    if len(given) > LONGEST_TEXT:
        raise ValueError(f"a text is too long: expected at most {LONGEST_TEXT} characters, got {len(given)}")
    if any("\ud800" <= letter <= "\udfff" for letter in given):
        raise ValueError("a text has half a character in it: expected Unicode")
    return given


Given = Annotated[bool | float | str, PlainValidator(_value, json_schema_input_type=bool | float | str)]


def _shape(given: Any) -> str:
    return "condition" if isinstance(given, Mapping | Condition) else "list" if isinstance(given, SEVERAL) else "value"


OneOrMany = Annotated[Annotated[Given, Tag("value")] | Annotated[list[Given], Tag("list")], Discriminator(_shape)]


class Condition(BaseModel):
    """Bounds, and what a value must not be; all of them hold.

    Args:
        gt: above it.
        gte: at least it.
        lt: below it.
        lte: at most it.
        other_than: in JSON `not`: neither it nor one of them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=False)

    gt: Given | None = None
    gte: Given | None = None
    lt: Given | None = None
    lte: Given | None = None
    other_than: OneOrMany | None = ModelField(None, alias="not")


Clause = Annotated[
    Annotated[Given, Tag("value")] | Annotated[list[Given], Tag("list")] | Annotated[Condition, Tag("condition")],
    Discriminator(_shape),
]
FILTER: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Clause])
"""What a filter is to pydantic, for those who want its JSON schema."""


@dataclass(frozen=True)
class Clauses:
    """What is asked of one column.

    Args:
        among: values of which one must be there; None for any.
        bounds: names of comparisons and what to compare with.
        without: values that must not be there.
    """

    among: list[Value] | None
    bounds: dict[str, Value]
    without: list[Value] | None


def read_filter(given: Mapping[str, Any]) -> str:
    """The filter in its one canonical spelling, as JSON.

    Raises:
        ConfigError: it is no filter, or a larger one than anybody needs.
    """
    if not isinstance(given, Mapping):
        raise ConfigError("the filter is no JSON object", got=_named(given), expected=EXPECTED)
    if len(given) > MOST_COLUMNS:
        raise ConfigError("the filter names too many columns", got=len(given), expected=f"at most {MOST_COLUMNS}")
    values = sum(_size(clause) for clause in given.values())
    if values > MOST_VALUES:
        raise ConfigError("the filter has too many values", got=values, expected=f"at most {MOST_VALUES}")
    try:
        checked = FILTER.validate_python(dict(given))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        column = str(first["loc"][0])[:60] if first["loc"] else ""
        reason = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            reason = f"{str(first['loc'][-1])[:60]!r} is no comparison"
        raise ConfigError(f"the filter on {column!r} cannot be read: {reason}", expected=EXPECTED) from error
    return json.dumps({name: _canonical(name, clause, given[name]) for name, clause in checked.items()}, sort_keys=True)


def _size(clause: Any) -> int:
    if isinstance(clause, Mapping):
        return sum(len(part) if isinstance(part, SEVERAL) else 1 for part in clause.values())
    return len(clause) if isinstance(clause, SEVERAL) else 1


def _canonical(name: str, clause: Any, given: Any) -> dict[str, Any]:
    if not isinstance(clause, Condition):
        return {"in": _listed(clause)}
    found = {key: getattr(clause, key) for key in COMPARISONS if getattr(clause, key) is not None}
    if clause.other_than is not None:
        found["not"] = _listed(clause.other_than)
    if not found or len(found) < len(given):
        raise ConfigError(f"the filter on {name[:60]!r} compares with nothing", got=_named(None), expected=EXPECTED)
    return found


def _listed(values: Any) -> list[Value]:
    """Each value once, in one order; true and 1 are two."""
    several = values if isinstance(values, list) else [values]
    once = {(type(value).__name__, value): value for value in several}
    return [once[key] for key in sorted(once)]


def _named(value: Any) -> str:
    """A value of any size and depth in a word."""
    names = {dict: "an object", list: "a list", type(None): "null"}
    return names.get(type(value), type(value).__name__)


@dataclass(frozen=True)
class Column:
    """The values of a metadata column that are there, one after the other.

    Args:
        kind: what they are.
        values: String, Float64 or Boolean, none missing.
        owner: the row that each belongs to.
    """

    kind: Kind
    values: pl.Series
    owner: NDArray[np.int32]

    @classmethod
    def of(cls, series: pl.Series) -> Column:
        """From a column of the catalogue.

        Raises:
            ConfigError: its type cannot be filtered by.
        """
        frame = pl.DataFrame({"owner": np.arange(len(series), dtype=np.int32), "value": series})
        if isinstance(series.dtype, pl.List | pl.Array):
            frame = frame.explode("value")
        plain = comparable(frame["value"].alias(series.name)).alias("value")
        frame = frame.with_columns(value=plain).drop_nulls("value")
        kinds: dict[Any, Kind] = {pl.String(): "text", pl.Float64(): "number", pl.Boolean(): "truth value"}
        return cls(kinds[plain.dtype], frame["value"], frame["owner"].to_numpy())

    def among(self, values: list[Value]) -> pl.Series:
        """Which values are one of some."""
        if not len(self.values):
            return pl.Series([], dtype=pl.Boolean)
        return self.values.is_in(pl.Series(values, dtype=self.values.dtype).implode())


def comparable(values: pl.Series) -> pl.Series:
    """As text, as numbers or as truth values; times become text as ISO writes them, and nan is missing.

    Raises:
        ConfigError: it is neither.
    """
    dtype = values.dtype
    if dtype in (pl.Null, pl.Categorical, pl.Enum):
        return values.cast(pl.String)
    if dtype == pl.Date:
        return values.dt.to_string("%Y-%m-%d")
    if isinstance(dtype, pl.Datetime):
        return values.dt.to_string("%Y-%m-%dT%H:%M:%S")
    if dtype == pl.Float32:  # by its shortest spelling: .1 is .1, and not .10000000149
        values = values.cast(pl.String).cast(pl.Float64)
    if dtype.is_numeric():
        return values.cast(pl.Float64).fill_nan(None)
    if dtype in (pl.String, pl.Boolean):
        return values
    raise ConfigError(
        f"the column {values.name!r} cannot be filtered by", got=str(dtype)[:60],
        expected="text, numbers, truth values, dates, or lists of them",
    )  # fmt: skip


class Filters:
    """Filters over the metadata of one catalogue; the rows of the last ones are kept.

    Args:
        metadata: columns in row order, or None.
        items: catalogue size.
    """

    def __init__(self, metadata: pl.DataFrame | None, items: int) -> None:
        self._metadata, self._items = metadata, items
        self._columns = lru_cache(maxsize=None)(self._column)
        self._found = lru_cache(maxsize=KEPT)(self._search)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns."""
        return () if self._metadata is None else tuple(self._metadata.columns)

    def rows(self, given: Mapping[str, Any]) -> NDArray[np.int32]:
        """The rows for which a filter holds, ascending; not to be written to. An empty filter holds for all.

        Raises:
            ConfigError: the filter cannot be read, names an unknown column, or compares what cannot be compared.
        """
        return self._found(read_filter(given))

    def _search(self, canonical: str) -> NDArray[np.int32]:
        held = np.ones(self._items, dtype=bool)
        for name, clause in json.loads(canonical).items():
            held &= self._held(name, clause)
        rows = np.flatnonzero(held).astype(np.int32)
        rows.setflags(write=False)
        return rows

    def _held(self, name: str, clause: dict[str, Any]) -> NDArray[np.bool_]:
        column = self._columns(name)
        without = clause.pop("not", None)
        for value in [*clause.get("in", ()), *(without or ()), *(clause[key] for key in COMPARISONS if key in clause)]:
            self._check(name, column, value)
        held = np.ones(self._items, dtype=bool)
        if clause:
            fitting = pl.repeat(True, len(column.values), eager=True)
            if "in" in clause:
                fitting = column.among(clause["in"])
            elif column.kind == "truth value":
                raise ConfigError(f"{name[:60]!r} holds truth values, which have no order", expected="true or false")
            for key in COMPARISONS.keys() & clause.keys() if len(column.values) else ():
                fitting &= COMPARISONS[key](column.values, clause[key])
            held = self._marked(column, fitting)
        return held & ~self._marked(column, column.among(without)) if without is not None else held

    def _marked(self, column: Column, fitting: pl.Series) -> NDArray[np.bool_]:
        mask = np.zeros(self._items, dtype=bool)
        mask[column.owner[fitting.to_numpy()]] = True
        return mask

    def _check(self, name: str, column: Column, value: Value) -> None:
        kind = "truth value" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"
        if kind != column.kind and len(column.values):
            raise ConfigError(
                f"the filter compares {name[:60]!r} with a {kind}", got=repr(value)[:60], expected=f"a {column.kind}"
            )

    def _column(self, name: str) -> Column:
        if name not in self.names:
            known = ", ".join(repr(known[:60]) for known in self.names[:NAMED]) or "none: items have no metadata"
            more = f" and {len(self.names) - NAMED} more" if len(self.names) > NAMED else ""
            raise ConfigError("the filter names an unknown column", got=repr(name[:60]), expected=known + more)
        assert self._metadata is not None
        return Column.of(self._metadata[name])
