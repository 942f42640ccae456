"""`auto`: which format a file or folder is, and why that is thought."""

from __future__ import annotations

from pathlib import Path

from l2d.errors import ArtifactMissing, DataError, InputError
from l2d.sources.amazon import literal_or_json
from l2d.sources.columns import Columns, recognise
from l2d.sources.log import locate
from l2d.sources.movielens import RATINGS
from l2d.sources.sequences import LIST_COLUMNS
from l2d.sources.tables import JsonLines, Table, head, open_table

Found = tuple[str, str]

MARKS = {
    "windows": "train.csv, valid.csv, test.csv and items.csv with a column history_item_ids",
    "d3": "info.txt and train/valid/test csv with a column history_item_id",
    "sequences": "sequences.csv (user_id, item_ids) and items.csv",
    "movielens": "ratings.dat, u.data, or ratings.csv with movies.csv",
    "amazon-2014": "reviews with reviewerID, asin, unixReviewTime; metadata as Python literals",
    "amazon-2018": "the same keys; metadata as JSON lines",
    "amazon-2023": "reviews with user_id, parent_asin, timestamp",
    "log": "a table with a user, an item and a time column",
}


def detect(source: Path, columns: Columns) -> Found:
    """The format of a source and the reason for it.

    Args:
        source: file or folder.
        columns: given column names: naming them means a log.

    Raises:
        ArtifactMissing: it is not there.
        DataError: no format fits.
    """
    if not source.exists():
        raise ArtifactMissing(f"{source} is not there", cure="check the path of SOURCE")
    found = _folder(source, columns) if source.is_dir() else _file(source, columns)
    if found is None:
        marks = "; ".join(f"{name}: {mark}" for name, mark in MARKS.items())
        raise DataError(
            f"the format of {source} is not recognised", expected=marks, cure="say which it is with --format"
        )
    return found


def _folder(folder: Path, columns: Columns) -> Found | None:
    names = {file.name for file in folder.iterdir()}
    if "sequences.csv" in names:
        return "sequences", "the folder has sequences.csv"
    for name in RATINGS:
        if name in names and (RATINGS[name] in names or name != "ratings.csv"):
            return "movielens", f"the folder has {name}"
    train = next(iter([*folder.glob("train.csv"), *sorted(folder.glob("train/*.csv"))]), None)
    if train is not None and (found := _file(train, columns)) is not None and found[0] in ("windows", "d3"):
        return found
    metadata = [name for name in names if name.lower().startswith("meta_") and ".json" in name]
    reviews = sorted(name for name in names if ".json" in name and name not in metadata)
    if metadata and reviews:
        return _file(folder / reviews[0], columns)
    try:
        log, _ = locate(folder)
    except InputError:
        return None
    return _file(log, columns)


def _file(file: Path, columns: Columns) -> Found | None:
    if file.name in ("ratings.dat", "u.data"):
        return "movielens", f"the file is called {file.name}"
    if file.name == "ratings.csv" and file.with_name("movies.csv").is_file():
        return "movielens", "movies.csv lies beside ratings.csv"
    if head(file).lstrip()[:1] == b"{":
        return _json(JsonLines(file, literal_or_json), columns)
    table = open_table(file)
    names = table.columns
    if "history_item_id" in names and "item_id" in names:
        return "d3", f"{file.name} has the columns history_item_id and item_id"
    if "history_item_ids" in names:
        return "windows", f"{file.name} has a column history_item_ids"
    lists = [name for name in LIST_COLUMNS if name in names]
    if lists and "user_id" in names and len(names) == 2:
        return "sequences", f"{file.name} has the columns user_id and {lists[0]}"
    return _log(table, columns)


def _json(table: JsonLines, columns: Columns) -> Found | None:
    names = set(table.columns)
    if {"reviewerID", "asin"} <= names and columns == Columns():
        if _literal_metadata(table.path) or ("helpful" in names and "verified" not in names):
            return "amazon-2014", f"{table.path.name} has reviewerID and asin, and is of the older kind"
        return "amazon-2018", f"{table.path.name} has reviewerID and asin, and is of the newer kind"
    if {"user_id", "parent_asin", "timestamp"} <= names and columns == Columns():
        return "amazon-2023", f"{table.path.name} has user_id, parent_asin and timestamp"
    return _log(table, columns)


def _literal_metadata(reviews: Path) -> bool:
    """Whether the metadata beside the reviews start like a Python dict rather than JSON."""
    return any(head(file).lstrip()[:2] in (b"{'", b"{u") for file in sorted(reviews.parent.glob("meta_*")))


def _log(table: Table, columns: Columns) -> Found | None:
    user = columns.user or recognise(table.columns, "user")
    item = columns.item or recognise(table.columns, "item")
    if user is None or item is None:
        return None
    return "log", f"{table.path.name} has a user column {user!r} and an item column {item!r}"
