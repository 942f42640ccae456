"""Filters on metadata: the rows of a plain loop over items, and no list holds anything else."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l2d.catalog import Catalog
from l2d.catalog.filters import KEPT, MOST_COLUMNS, MOST_VALUES
from l2d.errors import ConfigError
from l2d.recommender import DECODERS, Item, Recommender, RecommendRequest
from shop import CATALOG, ok, refused

TEXTS = ("Sony", "LG", "sony", "", "Ã", "z", "2024-01-05", "2024-01-05T10:00:00")
NUMBERS = (0, -0.0, 1, 5, 5.0, 5.5, -2, 1e-9, 1e15, 2**53 - 1)
KINDS: Mapping[str, tuple[Any, ...]] = {"text": TEXTS, "number": NUMBERS, "truth": (True, False)}
TYPES = {"text": pl.String(), "number": pl.Float64(), "truth": pl.Boolean()}
EXAMPLES = [{"brand": "Sony", "price": 3.0, "tags": ["a", "b"]}, {"brand": None, "price": 7.5, "tags": None}]


def holds(value: Any, clause: Any) -> bool:
    """What the language says of one item's value, read word for word."""
    values = [part for part in (value if isinstance(value, list) else [value]) if part is not None]
    if not isinstance(clause, dict):
        wanted = clause if isinstance(clause, list) else [clause]
        return any(one == other for one in values for other in wanted)
    bounds = {"gt": float.__gt__, "gte": float.__ge__, "lt": float.__lt__, "lte": float.__le__}
    texts = {"gt": str.__gt__, "gte": str.__ge__, "lt": str.__lt__, "lte": str.__le__}

    def within(one: Any) -> bool:
        for key in bounds.keys() & clause.keys():
            compare: Any = texts[key] if isinstance(one, str) else bounds[key]
            if not compare(
                one if isinstance(one, str) else float(one), clause[key] if isinstance(one, str) else float(clause[key])
            ):
                return False
        return True

    if bounds.keys() & clause.keys() and not any(map(within, values)):
        return False
    if "not" not in clause:
        return True
    unwanted = clause["not"] if isinstance(clause["not"], list) else [clause["not"]]
    return not any(one == other for one in values for other in unwanted)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[dict[str, Any]], dict[str, str], dict[str, Any]]:
    """Records of items, the kind of each column, and a filter on them."""
    names = draw(st.lists(st.sampled_from(["brand", "price", "a b", "é"]), min_size=1, unique=True))
    kinds = {name: draw(st.sampled_from(sorted(KINDS))) for name in names}
    lists = {name: draw(st.booleans()) for name in names}

    def value(name: str) -> st.SearchStrategy[Any]:
        single = st.sampled_from(KINDS[kinds[name]])
        return st.none() | (st.lists(st.none() | single, max_size=3) if lists[name] else single)

    records = draw(st.lists(st.fixed_dictionaries({name: value(name) for name in names}), min_size=1, max_size=12))

    def clause(name: str) -> st.SearchStrategy[Any]:
        single = st.sampled_from(KINDS[kinds[name]])
        several = single | st.lists(single, max_size=3)
        others = {} if kinds[name] == "truth" else dict.fromkeys(("gt", "gte", "lt", "lte"), single)
        condition = st.fixed_dictionaries({}, optional={"not": several, **others}).filter(bool)
        return several | condition

    asked = draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    return records, {name: (kinds[name], lists[name]) for name in names}, {name: draw(clause(name)) for name in asked}  # type: ignore[misc]


@settings(max_examples=150, deadline=None)
@given(worlds())
def test_rows_are_those_of_a_loop_over_items(world: tuple[list[dict[str, Any]], Any, dict[str, Any]]) -> None:
    records, kinds, condition = world
    schema = {name: pl.List(TYPES[kind]) if listed else TYPES[kind] for name, (kind, listed) in kinds.items()}
    frame = pl.DataFrame(records, schema=schema, strict=False)
    catalog = Catalog(tuple(str(row) for row in range(len(records))), ("x",) * len(records), frame)
    expected = [
        row
        for row, record in enumerate(records)
        if all(holds(record[name], clause) for name, clause in condition.items())
    ]
    assert catalog.where(condition).tolist() == expected
    assert catalog.where(json.loads(json.dumps(condition))).tolist() == expected


def with_metadata(**columns: pl.Series) -> Catalog:
    size = len(next(iter(columns.values())))
    return Catalog(tuple(str(row) for row in range(size)), ("x",) * size, pl.DataFrame(columns))


def test_columns_of_other_types_compare_as_what_they_look_like() -> None:
    catalog = with_metadata(
        day=pl.Series([datetime.date(2024, 1, 5), datetime.date(2023, 12, 31), None]),
        moment=pl.Series([datetime.datetime(2024, 1, 5, 10), datetime.datetime(2024, 1, 5, 11), None]),
        single=pl.Series([0.1, 0.2, math.nan], dtype=pl.Float32),
        small=pl.Series([1, 2, 255], dtype=pl.UInt8),
        large=pl.Series([2**53, 2**53 + 1, 2**60], dtype=pl.Int64),
        brand=pl.Series(["a", "b", "a"], dtype=pl.Categorical),
        cost=pl.Series(["1.50", "2.50", "3"]).cast(pl.Decimal(10, 2)),
    )
    assert catalog.where({"day": {"gte": "2024-01-01"}}).tolist() == [0]
    assert catalog.where({"day": "2023-12-31"}).tolist() == [1]
    assert catalog.where({"moment": {"gt": "2024-01-05T10:30"}}).tolist() == [1]
    assert catalog.where({"single": [0.1, 0.2]}).tolist() == [0, 1]
    assert catalog.where({"single": {"gt": 0.15}}).tolist() == [1]
    assert catalog.where({"small": {"gte": 2, "lt": 300}}).tolist() == [1, 2]
    assert catalog.where({"large": {"gt": 2**53 - 1}}).tolist() == [0, 1, 2]
    assert catalog.where({"brand": "a"}).tolist() == [0, 2]
    assert catalog.where({"cost": {"lt": 2.5}}).tolist() == [0]


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        ([], "no JSON object"),
        ({"brand": None}, "'brand'.*a value is null"),
        ({"brand": [None]}, "a value is null"),
        ({"brand": [["Sony"]]}, "a value is a list"),
        ({"brand": {"gt": {"gt": 1}}}, "a value is an object"),
        ({"brand": {"above": 1}}, "'above' is no comparison"),
        ({"brand": {}}, "compares with nothing"),
        ({"brand": {"gt": None}}, "compares with nothing"),
        ({"brand": 5}, "compares 'brand' with a number.*expected a text"),
        ({"price": "5"}, "compares 'price' with a text.*expected a number"),
        ({"price": {"lt": True}}, "with a truth value"),
        ({"price": math.nan}, "too large"),
        ({"price": math.inf}, "too large"),
        ({"price": 10**400}, "too large"),
        ({"brand": "x" * 1001}, "too long"),
        ({"brand": "\ud800"}, "half a character"),
        ({"colour": "red"}, r"unknown column \(got 'colour', expected 'brand', 'price', 'tags', 'stock', 'shape'\)"),
        ({"c" * 9999: "red"}, "unknown column"),
        ({"\ud800": "red"}, "unknown column"),
        ({7: "red"}, "'7'"),
        ({"stock": {"gt": False}}, "no order"),
        ({"shape": "round"}, "'shape' cannot be filtered by"),
        ({"price": list(range(MOST_VALUES + 1))}, "too many values"),
        ({"price": {"not": list(range(MOST_VALUES)), "gt": 1}}, "too many values"),
        ({f"c{number}": 1 for number in range(MOST_COLUMNS + 1)}, "too many columns"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_what_cannot_be_asked_is_refused_in_words_that_can_be_written(condition: Any, told: str) -> None:
    catalog = with_metadata(
        brand=pl.Series(["Sony", None]), price=pl.Series([1.0, 2.0]), tags=pl.Series([["a"], []]),
        stock=pl.Series([True, False]), shape=pl.Series([{"edge": 1}, {"edge": 2}]),
    )  # fmt: skip
    with pytest.raises(ConfigError, match=told) as caught:
        catalog.where(condition)
    assert len(str(caught.value).encode()) < 700


def test_a_deep_filter_is_refused_without_being_walked() -> None:
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ConfigError, match="a value is a list"):
        with_metadata(brand=pl.Series(["x"])).where({"brand": deep})


def test_a_filter_is_computed_once_however_it_is_spelt_and_never_kept_for_another_catalogue() -> None:
    catalog = Catalog(("1", "2"), ("x", "y"), pl.DataFrame(EXAMPLES))
    first = catalog.where({"brand": ["Sony", "LG"], "price": {"lt": 5, "gt": 1}})
    assert catalog.where({"price": {"gt": 1.0, "lt": 5.0}, "brand": ("LG", "Sony", "LG")}) is first
    with pytest.raises(ValueError, match="read-only"):
        first[:] = 0
    for number in range(KEPT + 1):
        catalog.where({"price": number})
    again = catalog.where({"brand": ["Sony", "LG"], "price": {"lt": 5, "gt": 1}})
    assert again is not first
    assert again.tolist() == first.tolist() == [0]
    assert catalog.with_metadata({"2": {"brand": "LG", "price": 2}}).where({"brand": "LG"}).tolist() == [1]
    assert catalog.where({"brand": "LG"}).tolist() == []


def test_true_and_one_are_two_values() -> None:
    catalog = with_metadata(stock=pl.Series([True, False]))
    assert catalog.where({"stock": True}).tolist() == [0]
    with pytest.raises(ConfigError, match="with a number"):
        catalog.where({"stock": 1})


def test_a_catalogue_without_metadata_says_so_and_everything_passes_no_filter() -> None:
    catalog = Catalog.from_titles(["a", "b"])
    assert catalog.where({}).tolist() == [0, 1]
    with pytest.raises(ConfigError, match="none: items have no metadata"):
        catalog.where({"brand": "Sony"})


@pytest.fixture(scope="module")
def described(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    import shutil

    out = tmp_path_factory.mktemp("described") / "run"
    shutil.copytree(run, out)
    opened = Recommender.load(out, device="cpu")
    assert CATALOG.metadata is not None
    opened.put_items([Item(item, None, CATALOG.described(row)) for row, item in enumerate(CATALOG.item_ids)])
    opened.calibrate()
    return opened


@pytest.mark.parametrize(
    "decoder", [name for name, kind in DECODERS.items() if kind in ("latent", "baseline") or name == "beam"]
)
def test_every_decoder_lists_what_the_filter_allows_and_nothing_else(described: Recommender, decoder: str) -> None:
    condition = {"price": {"lt": 15}, "genre": {"not": "Travel"}}
    fitting = {
        CATALOG.item_id(row) for row in range(len(CATALOG))
        if CATALOG.described(row)["price"] < 15 and CATALOG.described(row)["genre"] != "Travel"
    }  # fmt: skip
    assert 3 < len(fitting) < len(CATALOG)
    some = sorted(fitting)[:4]
    history = [CATALOG.titles[3], CATALOG.titles[8]]
    whole, part, plain = described.recommend_batch(
        [
            RecommendRequest(history, 60, filter=condition),
            RecommendRequest(history, 60, exclude=some[:2], allow=[*some, *CATALOG.titles[:4]], filter=condition),
            RecommendRequest(history, 60),
        ],
        decoder=decoder,
    )
    allowed = set(some[2:]) | ({CATALOG.item_id(row) for row in range(4)} & fitting - set(some[:2]))
    assert {found.item_id for found in whole} <= fitting
    assert {found.item_id for found in part} <= allowed
    assert {found.item_id for found in whole} == {found.item_id for found in plain} & fitting or decoder == "beam"
    open_to_all = described.recommend(history, k=60, decoder=decoder, filter={})
    assert open_to_all == described.recommend(history, k=60, decoder=decoder)
    assert described.recommend(history, decoder=decoder, filter={"price": {"lt": -1}}) == []


def test_the_command_filters_by_option_and_by_line(described: Recommender, tmp_path: Path) -> None:
    words = ("recommend", described.path, "--history", CATALOG.titles[3])
    where = {"price": {"lt": 12}}
    found = json.loads(ok(*words, "--json", "--where", json.dumps(where)).out)["items"]
    assert [one["item_id"] for one in found] == [
        one.item_id for one in described.recommend([CATALOG.titles[3]], filter=where)
    ]
    file = tmp_path / "requests.jsonl"
    line = {"history": [CATALOG.titles[3]], "filter": where}
    file.write_text(json.dumps(line) + "\n" + json.dumps({**line, "filter": None}))
    first, second = ok("recommend", described.path, "--requests", file).out.splitlines()
    assert [one["item_id"] for one in json.loads(first)["items"]] == [one["item_id"] for one in found]
    assert json.loads(second) != json.loads(first)
    assert "no JSON object" in refused(*words, "--where", "price<12")
    assert "unknown column" in refused(*words, "--where", '{"colour": "red"}')
    assert "--where" in refused("recommend", described.path, "--requests", file, "--where", "{}")
    for bad, told in (({"filter": {"colour": 1}}, "unknown column"), ({"filter": [1]}, "filter is no object")):
        file.write_text(json.dumps(line) + "\n" + json.dumps({**line, **bad}))
        assert f"{file}:2: " in refused("recommend", described.path, "--requests", file)
        assert told in refused("recommend", described.path, "--requests", file)


def test_rows_are_small_integers() -> None:
    assert Catalog.from_titles(["a"]).where({}).dtype == np.int32
