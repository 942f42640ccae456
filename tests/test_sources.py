"""Readers: hand-written files in every format, and what is in them by eye."""

from __future__ import annotations

import gzip
import json
import os
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from l2d.catalog import Catalog
from l2d.errors import DataError, InputError
from l2d.interactions import Dataset, Interactions
from l2d.sources import FORMATS, Columns, prepare, read
from l2d.sources.detect import detect
from l2d.sources.reading import Request

DATA = Path(os.environ.get("L2D_DATA", Path(__file__).parents[1].parent / "shared" / "data"))
Rows = list[tuple[str, str, int]]


def rows(read_back: tuple[Catalog, Interactions]) -> Rows:
    """User id, item id, seconds of every interaction, in order."""
    catalog, log = read_back
    return [
        (log.user_ids[user], catalog.item_ids[row], int(time))
        for user, row, time in zip(log.user, log.row, log.timestamp, strict=True)
    ]


def put(folder: Path, **files: str | bytes) -> Path:
    """Writes files whose names have `__` for the dot."""
    for name, content in files.items():
        raw = content if isinstance(content, bytes) else content.encode()
        (folder / name.replace("__", ".")).write_bytes(raw)
    return folder


ITEMS = "item_id,title\na,Alpha\nb,Beta\nc,Gamma\n"
LOG = "user_id,item_id,timestamp\nx,a,10\nx,b,20\ny,b,15\ny,c,30\nx,c,40\n"
PLAIN: Rows = [("x", "a", 10), ("x", "b", 20), ("x", "c", 40), ("y", "b", 15), ("y", "c", 30)]


# One log, many spellings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("log.csv", LOG),
        ("log.tsv", LOG.replace(",", "\t")),
        ("log.txt", LOG.replace(",", ";")),
        ("log.inter", LOG.replace("user_id", "user_id:token").replace("item_id", "item_id:token").replace(",", "\t")),
        ("bom.csv", "\ufeff" + LOG.replace("\n", "\r\n")),
        ("blank.csv", LOG.replace("\n", "\n\n").replace("x,", ' "x" ,').replace(",b,", ", b ,")),
        ("quoted.csv", "\n".join(",".join(f'"{cell}"' for cell in line.split(",")) for line in LOG.splitlines())),
        ("cut.csv", LOG.rstrip("\n")),
        ("log.csv.gz", gzip.compress(LOG.encode(), mtime=0)),
        ("gzipped-but-not-said.csv", gzip.compress(LOG.encode(), mtime=0)),
        (
            "iso.csv",
            LOG.replace(",10", ",1970-01-01T00:00:10Z")
            .replace(",20", ",1970-01-01T01:00:20+01:00")
            .replace(",15", ",1970-01-01 00:00:15")
            .replace(",30", ",1970/01/01 00:00:30")
            .replace(",40", ",1970-01-01T00:00:40.25"),
        ),
        ("float.csv", LOG.replace("0\n", "0.0\n").replace("15\n", "15.75\n")),
        ("names.csv", LOG.replace("user_id,item_id,timestamp", "Reviewer ID,Product-Id,Unix Review Time")),
        ("star[1]*.csv", LOG),
    ],
)
def test_text_spellings_of_one_log(tmp_path: Path, name: str, content: str | bytes) -> None:
    put(tmp_path, **{name.replace(".", "__"): content, "items__csv": ITEMS})
    assert rows(read(tmp_path / name, items=tmp_path / "items.csv", format="log")) == PLAIN


def test_a_json_key_with_half_a_character_is_no_column(tmp_path: Path) -> None:
    """It would be recognised otherwise, and no table can hold such a name."""
    records = [{"\ud800user_id": user, "item_id": "a", "timestamp": 10} for user in (1, 2)]
    put(tmp_path, log__jsonl="\n".join(json.dumps(record) for record in records))
    with pytest.raises(InputError, match="user"):
        read(tmp_path / "log.jsonl")


def test_json_lines_with_mixed_types_and_titles(tmp_path: Path) -> None:
    """1, "1" and 1.0 are one id; keys may be missing; further keys are passed over."""
    lines = [
        {"user_id": 1, "item_id": "7", "timestamp": 10, "title": "Seven", "more": [1, {"a": 2}]},
        {"user_id": "1", "item_id": 7.0, "timestamp": "20"},
        {"user_id": 1.0, "item_id": 8, "timestamp": 30.5, "title": "Eight \ud83d"},
        {"user_id": None, "item_id": 8, "timestamp": 30},
    ]
    put(tmp_path, log__jsonl="\n\n".join(json.dumps(line) for line in lines))
    catalog, log = read(tmp_path / "log.jsonl")
    assert rows((catalog, log)) == [("1", "7", 10), ("1", "7", 20), ("1", "8", 30)]
    assert catalog.titles == ("Seven", "Eight ?")


@pytest.mark.parametrize("kind", ["int", "float", "string", "category"])
@pytest.mark.parametrize("time", ["s", "ms", "us", "ns", "datetime", "zoned", "date", "text"])
def test_parquet_types(tmp_path: Path, kind: str, time: str) -> None:
    seconds = np.array([1_500_000_000, 1_600_000_000]) // 86_400 * 86_400
    scale = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
    stamps = [datetime.fromtimestamp(second, UTC) for second in seconds.tolist()]
    times = {
        **{unit: pl.Series(seconds * factor) for unit, factor in scale.items()},
        "datetime": pl.Series([stamp.replace(tzinfo=None) for stamp in stamps], dtype=pl.Datetime("ns")),
        "zoned": pl.Series(stamps).dt.convert_time_zone("Asia/Tokyo"),
        "date": pl.Series([stamp.date() for stamp in stamps]),
        "text": pl.Series([stamp.isoformat() for stamp in stamps]),
    }
    type_ = {"int": pl.Int64, "float": pl.Float64, "string": pl.String, "category": pl.Categorical}[kind]
    ids = pl.Series(["3", "3"]).cast(pl.Int64).cast(pl.String if kind == "category" else type_).cast(type_)
    frame = pl.DataFrame({"user": ids, "item": [5, 6], "time": times[time], "title": ["F", "S"]})
    frame.write_parquet(tmp_path / "log.parquet")
    assert rows(read(tmp_path / "log.parquet")) == [("3", "5", seconds[0]), ("3", "6", seconds[1])]


def test_items_in_every_kind_of_table(tmp_path: Path) -> None:
    put(tmp_path, log__csv=LOG)
    frame = pl.read_csv(ITEMS.encode())
    frame.write_csv(tmp_path / "i.csv")
    frame.write_csv(tmp_path / "i.tsv", separator="\t")
    frame.write_parquet(tmp_path / "i.parquet")
    frame.write_ndjson(tmp_path / "i.jsonl")
    for name in ("i.csv", "i.tsv", "i.parquet", "i.jsonl"):
        catalog, _ = read(tmp_path / "log.csv", items=tmp_path / name)
        assert (catalog.item_ids, catalog.titles) == (("a", "b", "c"), ("Alpha", "Beta", "Gamma")), name


def test_cells_with_commas_quotes_and_newlines(tmp_path: Path) -> None:
    put(
        tmp_path,
        log__csv='user_id,item_id,timestamp,title\nx,"a,1",10,"Al\npha ""x"""\nx,b,20,7" single\nx,c,30,"C, d"\n',
    )
    catalog, log = read(tmp_path / "log.csv")
    assert catalog.item_ids == ("a,1", "b", "c") and catalog.titles == ('Al pha "x"', '7" single', "C, d")
    assert rows((catalog, log))[0] == ("x", "a,1", 10)


def test_whole_columns_of_1_0_are_integers_and_single_ones_are_not(tmp_path: Path) -> None:
    put(
        tmp_path,
        log__csv="user,item,time\n1.0,5.0,1\n1.0,6.0,2\n2.0,x,3\n",
        items__csv="item,title\n5.0,F\n6.0,S\nx,X\n",
    )
    catalog, log = read(tmp_path / "log.csv", items=tmp_path / "items.csv")
    assert log.user_ids == ("1", "2") and catalog.item_ids == ("5.0", "6.0", "x")


def test_given_columns_win_over_recognised_ones(tmp_path: Path) -> None:
    put(
        tmp_path,
        log__csv="user,buyer,asin,parent_asin,when\nu,v,a,b,1\nu,w,a,c,2\n",
        items__csv="parent_asin,title\nb,B\nc,C\na,A\n",
    )
    named = Columns(user="buyer", item="asin", time="when")
    assert rows(read(tmp_path / "log.csv", items=tmp_path / "items.csv", columns=named)) == [
        ("v", "a", 1),
        ("w", "a", 2),
    ]
    plain = read(tmp_path / "log.csv", items=tmp_path / "items.csv", columns=Columns(time="when"))
    assert rows(plain) == [("u", "b", 1), ("u", "c", 2)]


def test_milliseconds_order_clicks_of_one_second(tmp_path: Path) -> None:
    put(tmp_path, log__csv="user,item,time,title\nu,b,1500000000900,B\nu,a,1500000000100,A\n")
    assert [item for _, item, _ in rows(read(tmp_path / "log.csv"))] == ["a", "b"]


# Formats -----------------------------------------------------------------------------------------------------------

RATINGS = [("1", "10", 100), ("1", "20", 200), ("2", "20", 150)]
MOVIES = {"10": "Am\u00e9lie (2001)", "20": "Star Wars: Episode IV (1977)"}


def movielens(folder: Path, edition: str) -> Path:
    if edition == "::":
        ratings = "".join(f"{user}::{item}::5::{time}\n" for user, item, time in RATINGS)
        movies = "".join(f"{item}::{title}::Comedy\n" for item, title in MOVIES.items())
        return put(folder, ratings__dat=ratings, movies__dat=movies.encode("latin-1"))
    if edition == "tab":
        ratings = "".join(f"{user}\t{item}\t5\t{time}\n" for user, item, time in RATINGS)
        movies = "".join(f"{item}|{title}|01-Jan-1995||http|0|1\n" for item, title in MOVIES.items())
        return put(folder, u__data=ratings, u__item=movies.encode("latin-1"))
    ratings = "userId,movieId,rating,timestamp\n" + "".join(
        f"{user},{item},4.5,{time}\n" for user, item, time in RATINGS
    )
    movies = "movieId,title,genres\n" + "".join(f'{item},"{title}",Comedy\n' for item, title in MOVIES.items())
    return put(folder, ratings__csv=ratings, movies__csv=movies, tags__csv="userId,movieId,tag\n")


@pytest.mark.parametrize("edition", ["::", "tab", "csv"])
@pytest.mark.parametrize("format", ["auto", "movielens"])
def test_movielens_editions(tmp_path: Path, edition: str, format: str) -> None:
    catalog, log = read(movielens(tmp_path, edition), format=format)
    assert rows((catalog, log)) == RATINGS
    assert dict(zip(catalog.item_ids, catalog.titles, strict=True)) == MOVIES


def amazon(folder: Path, edition: str) -> Path:
    user, item, time = (
        ("user_id", "parent_asin", "timestamp") if edition == "2023" else ("reviewerID", "asin", "unixReviewTime")
    )
    scale = 1000 if edition == "2023" else 1
    reviews = [
        {user: who, item: what, time: when * scale, "title": f"Review at {when}", "summary": "Good"}
        for who, what, when in [
            ("A1", "B1", 1_400_000_000),
            ("A1", "B2", 1_400_000_100),
            ("A2", "B1", 1_400_000_050),
            ("A2", "B3", 1_500_000_000),
        ]
    ]
    metadata = [
        {item: "B2", "title": 'A "b"'},
        {item: "B1", "title": "It's &amp; \u00e9"},
        {item: "B9", "title": "Nobody's"},
    ]
    metadata.append(metadata[1] | {"title": "Second record"})
    lines = [repr(record) if edition == "2014" else json.dumps(record) for record in metadata]
    name = {"2014": "reviews_X_5.json.gz", "2018": "X_5.json.gz", "2023": "X.jsonl.gz"}[edition]
    meta = "meta_X.jsonl.gz" if edition == "2023" else "meta_X.json.gz"
    (folder / name).write_bytes(gzip.compress("\n".join(json.dumps(review) for review in reviews).encode()))
    (folder / meta).write_bytes(gzip.compress("\n".join(lines).encode()))
    return folder


@pytest.mark.parametrize("edition", ["2014", "2018", "2023"])
@pytest.mark.parametrize("format", ["auto", "named"])
def test_amazon_editions(tmp_path: Path, edition: str, format: str) -> None:
    """Titles come from the metadata, the first record of an item counts, unreviewed items stay out, B3 has none."""
    folder = amazon(tmp_path, edition)
    catalog, log = read(folder, format="auto" if format == "auto" else f"amazon-{edition}")
    assert rows((catalog, log)) == [
        ("A1", "B1", 1_400_000_000),
        ("A1", "B2", 1_400_000_100),
        ("A2", "B1", 1_400_000_050),
    ]
    assert catalog.item_ids == ("B1", "B2") and catalog.titles == ("It's & \u00e9", 'A "b"')
    notes = FORMATS[f"amazon-{edition}"].read(Request(folder)).notes
    assert [record["count"] for record in notes if "several titles" in record["why"]] == [1]


def test_old_reviews_are_told_by_their_helpful_votes(tmp_path: Path) -> None:
    review = {"reviewerID": "A", "asin": "B", "unixReviewTime": 1}
    for more, edition in (({"helpful": [2, 3]}, "amazon-2014"), ({"verified": True}, "amazon-2018")):
        put(tmp_path, X__json=json.dumps(review | more))
        assert detect(tmp_path / "X.json", Columns())[0] == edition


def test_python_literals_are_parsed_and_never_run(tmp_path: Path) -> None:
    folder = amazon(tmp_path, "2014")
    witness = tmp_path / "witness"
    evil = f"{{'asin': 'B1', 'title': open({str(witness)!r}, 'w').name}}"
    (folder / "meta_X.json.gz").write_bytes(gzip.compress(evil.encode(), mtime=0))
    with pytest.raises(DataError, match=r"meta_X.json.gz:1: "):
        read(folder, format="amazon-2014")
    assert not witness.exists()


WINDOW = "user_id,history_item_ids,item_id,timestamp,history_timestamps\n"
TRAIN = "user_id,history_item_ids,item_id,timestamp_approx\nx,a,b,100\nx,a b,c,200\n"


def windows(folder: Path, **changes: str) -> Path:
    files = {
        "train__csv": TRAIN,
        "valid__csv": WINDOW + "y,c b,a,300,250 260\n",
        "test__csv": WINDOW + "x,b c,c,400,100 200\n",
    }
    return put(folder, **{"items__csv": ITEMS, **files, **changes})


def test_windows_are_laid_out_as_given(tmp_path: Path) -> None:
    dataset = prepare(windows(tmp_path))
    assert dataset.info["format"] == "windows" and dataset.info["windows"] is True and dataset.info["split"] == "given"
    assert dataset.interactions.row.tolist() == [0, 1, 0, 1, 2, 2, 1, 0, 1, 2, 2]
    assert dataset.interactions.timestamp.tolist() == [-1, 100, -1, -1, 200, 250, 260, 300, 100, 200, 400]
    examples = [
        (list(example.history), example.target)
        for name in ("train", "valid", "test")
        for example in dataset.splits[name]
    ]
    assert examples == [([0], 1), ([0, 1], 2), ([2, 1], 0), ([1, 2], 2)]
    assert dataset.splits.test.last_timestamp.tolist() == [200]
    assert dataset.user_history("x").tolist() == [1, 2, 2] and dataset.user_history("y").tolist() == [2, 1, 0]


def test_d3_layout_in_one_folder_and_in_three(tmp_path: Path) -> None:
    header = "user_id,history_item_title,item_title,history_item_id,item_id\n"
    part = header + "1,\"['Alpha', 'Beta']\",Gamma,\"['a', 'b']\",c\n"
    flat, deep = tmp_path / "flat", tmp_path / "deep"
    flat.mkdir()
    put(flat, train__csv=part, valid__csv=part, test__csv=part, info__txt="Alpha\ta\nBeta\tb\nGamma\tc\n")
    for name in ("train", "valid", "test", "info"):
        (deep / name).mkdir(parents=True)
        (deep / name / f"CDs_5{'.txt' if name == 'info' else '.csv'}").write_bytes(
            b"<a_1>\tAlpha\ta\n<b_2>\tBeta\tb\n<c_3>\tGamma\tc\n" if name == "info" else part.encode()
        )
    for folder in (flat, deep):
        dataset = prepare(folder)
        assert dataset.info["format"] == "d3" and dataset.catalog.titles == ("Alpha", "Beta", "Gamma")
        assert [(list(example.history), example.target) for example in dataset.splits.valid] == [([0, 1], 2)]
        assert not dataset.interactions.timed


def test_sequences(tmp_path: Path) -> None:
    put(tmp_path, items__csv=ITEMS, sequences__csv="user_id,item_ids\n7,a b a c\n8,c\n9,\n")
    dataset = prepare(tmp_path)
    assert dataset.info["split"] == "leave-last-out" and dataset.info["format"] == "sequences"
    assert rows((dataset.catalog, dataset.interactions)) == [("7", item, -1) for item in "abac"] + [("8", "c", -1)]


@pytest.mark.parametrize(
    ("folder", "sizes", "users", "items"),
    [
        ("amazon-cds", (49_251, 6_156, 6_157), 7_685, 5_841),
        ("amazon-games", (49_133, 6_142, 6_142), 9_066, 3_858),
        ("amazon-beauty", (131_413, 22_363, 22_363), 22_363, 12_101),
        ("d3-layout-sample", (600, 200, 200), None, 3_858),
    ],
)
def test_real_data(folder: str, sizes: tuple[int, int, int], users: int | None, items: int) -> None:
    if not (DATA / folder).is_dir():
        pytest.skip(f"{DATA / folder} is not there; set L2D_DATA to the folder with the data sets")
    dataset = prepare(DATA / folder)
    assert tuple(len(dataset.splits[name]) for name in ("train", "valid", "test")) == sizes
    assert len(dataset.catalog) == items and (users is None or len(dataset.interactions.user_ids) == users)
    if folder == "amazon-beauty":
        assert len(dataset.interactions) == 198_502
    else:
        check_windows_against_the_file(dataset, DATA / folder)


def check_windows_against_the_file(dataset: Dataset, folder: Path) -> None:
    """Every test window, read again by polars alone, has the same ids."""
    table = pl.read_csv(folder / "test.csv", infer_schema=False)
    column = table["history_item_ids" if "history_item_ids" in table.columns else "history_item_id"]
    for example, history, target in zip(dataset.splits.test, column, table["item_id"], strict=True):
        assert [dataset.catalog.item_ids[row] for row in example.history] == history.strip("[]").replace(
            ",", ""
        ).split()
        assert dataset.catalog.item_ids[example.target] == target


# Recognition -------------------------------------------------------------------------------------------------------


def test_auto_says_what_and_why(tmp_path: Path) -> None:
    put(tmp_path, events__csv=LOG + "x,a,50\n", items__csv=ITEMS)
    dataset = prepare(tmp_path, split="leave-last-out")
    assert dataset.info["format"] == "log" and "user_id" in dataset.info["recognised"]
    assert dataset.info["columns"] == {"user": "user_id", "item": "item_id", "time": "timestamp"}


def test_auto_refuses_and_lists_the_formats(tmp_path: Path) -> None:
    put(tmp_path, notes__csv="colour,size\nred,1\n")
    for source in (tmp_path, tmp_path / "notes.csv"):
        with pytest.raises(DataError) as refused:
            read(source)
        assert all(name in str(refused.value) for name in FORMATS) and "--format" in str(refused.value)


def test_auto_asks_which_of_two_logs(tmp_path: Path) -> None:
    put(tmp_path, one__csv=LOG, two__csv=LOG, items__csv=ITEMS)
    with pytest.raises(InputError, match=r"one\.csv.*two\.csv"):
        read(tmp_path, format="log")
