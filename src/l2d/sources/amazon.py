"""`amazon-2014`, `amazon-2018`, `amazon-2023`: reviews and metadata, one record per line, usually gzipped."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from l2d.errors import ArtifactMissing, DataError
from l2d.sources.columns import Columns
from l2d.sources.gather import gather, read_titles, with_items
from l2d.sources.reading import Reading, Request
from l2d.sources.tables import JsonLines, strict_json

OLD_COLUMNS = Columns("reviewerID", "asin", "unixReviewTime", "title")
NEW_COLUMNS = Columns("user_id", "parent_asin", "timestamp", "title")


def literal_or_json(line: bytes) -> Any:
    """A JSON object, or a Python literal as in the 2014 metadata: parsed by `ast.literal_eval`, which runs nothing.

    Raises:
        ValueError: neither.
    """
    try:
        return strict_json(line)
    except ValueError:
        text = line.decode("utf-8-sig").strip()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "\d" and the like in descriptions
            return ast.literal_eval(text)
    except (SyntaxError, TypeError, MemoryError) as error:
        raise ValueError(f"neither JSON nor a Python literal: {error}") from error


def reader(columns: Columns, decode: Callable[[bytes], Any]) -> Callable[[Request], Reading]:
    """A reader of one edition.

    Args:
        columns: the edition's keys of user, item and time in the reviews, item and title in the metadata.
        decode: how its lines are written.
    """

    def read(request: Request) -> Reading:
        reviews, metadata = locate(request.source, request.items)
        given = request.columns
        named = Columns(given.user or columns.user, given.item or columns.item, given.time or columns.time)
        # A 2023 review has a title of its own, "Five stars": titles come from the metadata alone.
        reading = gather(JsonLines(reviews, decode), named, titles=False, progress=request.progress)
        known = set(reading.item_ids)
        titles = read_titles(JsonLines(metadata, decode), columns, only=known, repeats=True)
        return with_items(reading, titles, metadata, all_items=False)

    return read


def locate(source: Path, items: Path | None) -> tuple[Path, Path]:
    """Reviews and metadata: `meta_*` beside the reviews is taken unless another file is given.

    Raises:
        ArtifactMissing: there is no metadata.
        DataError: several files could be meant.
    """
    folder = source if source.is_dir() else source.parent
    files = (
        [file for file in sorted(folder.iterdir()) if ".json" in file.name and file.is_file()]
        if folder.is_dir()
        else []
    )
    metadata = [items] if items else [file for file in files if file.name.lower().startswith("meta")]
    reviews = [file for file in files if file not in metadata] if source.is_dir() else [source]
    if not items and len(metadata) > 1:  # files of several categories in one folder: the name decides
        metadata = [file for file in metadata if category(file) == category(reviews[0])]
    if not metadata:
        raise ArtifactMissing(
            f"no metadata (meta_*.json.gz) beside {source}", cure="titles are in it: pass it with --items"
        )
    if len(reviews) != 1 or len(metadata) != 1:
        raise DataError(
            f"{source} does not show which file is meant",
            got=", ".join(file.name for file in [*reviews, *metadata]),
            expected="one file of reviews and one of metadata",
            cure="give the reviews as SOURCE and the metadata with --items",
        )
    return reviews[0], metadata[0]


def category(file: Path) -> str:
    """`meta_All_Beauty.json.gz`, `reviews_All_Beauty_5.json.gz`, `All_Beauty.jsonl` -> `all_beauty`."""
    stem = file.name.split(".")[0].lower()
    return stem.removeprefix("meta_").removeprefix("reviews_").removesuffix("_5")


read_2014 = reader(OLD_COLUMNS, literal_or_json)
read_2018 = reader(OLD_COLUMNS, strict_json)
read_2023 = reader(NEW_COLUMNS, strict_json)
