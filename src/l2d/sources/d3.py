"""`d3`: the column layout of the D3, BIGRec and MiniOneRec repositories: Python lists, `info.txt` = title TAB id."""

from __future__ import annotations

import ast
import warnings
from dataclasses import replace
from pathlib import Path

from l2d.errors import ArtifactMissing, DataError
from l2d.interactions import SPLITS
from l2d.sources.gather import Titles
from l2d.sources.layout import Layout
from l2d.sources.reading import Reading, Request, bare
from l2d.sources.tables import Table, fault, open_table, text_lines, whole

COLUMNS = ["user_id", "history_item_id", "item_id"]


def read(request: Request) -> Reading:
    """Reads the examples exactly as given. The layout has no times.

    Raises:
        ArtifactMissing: one of the files is not there.
        DataError: a cell is no list, or an id is not in info.txt, by file and line.
    """
    folder = request.source if request.source.is_dir() else request.source.parent
    info = request.items or part(folder, "info", ".txt")
    titles = read_info(info)
    layout = Layout(titles.text, info)
    for done, name in enumerate(SPLITS):
        add_file(layout, open_table(part(folder, name, ".csv")))
        if request.progress is not None:
            request.progress(done + 1, len(SPLITS))
    return replace(layout.reading(timed=False), titles=titles.text)


def part(folder: Path, name: str, suffix: str) -> Path:
    """`train.csv`, or the only csv in `train/`; likewise valid, test and info.txt.

    Raises:
        ArtifactMissing: neither is there.
        DataError: `train/` has several.
    """
    single = folder / f"{name}{suffix}"
    found = [single] if single.is_file() else sorted((folder / name).glob(f"*{suffix}"))
    if not found:
        raise ArtifactMissing(f"{single} is not there", cure=f"put it there, or one {suffix} file into {folder / name}")
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise DataError(f"{folder / name} has several files", got=names, expected="one", cure="move the others away")
    return found[0]


def read_info(path: Path) -> Titles:
    """Titles by id. A third column in front (MiniOneRec's semantic ids) is passed over.

    Raises:
        DataError: a line without a tab, or a repeated id.
    """
    titles = Titles()
    for number, line in enumerate(text_lines(path), 1):
        if not line.strip():
            continue
        cells = line.rstrip("\r\n").split("\t")
        item = bare(cells[-1])
        if len(cells) < 2 or not item:
            cure = "fix the line"
            raise DataError(
                "the line is no item", got=repr(line[:80]), expected="title TAB id", cure=cure, file=path, line=number
            )
        if not cells[-2].strip():
            cure = "give it a title"
            raise DataError(
                "an item has no title", got=repr(line[:80]), expected="text", cure=cure, file=path, line=number
            )
        if item in titles.text:
            cure = "merge the lines or renumber one"
            raise DataError(
                "an item id occurs twice", got=repr(item), expected="each id once", cure=cure, file=path, line=number
            )
        titles.add(item, cells[-2])
    if not titles.text:
        raise DataError(
            "the item file has no items", expected="lines of title TAB id", cure="check the file", file=path
        )
    return titles


def add_file(layout: Layout, table: Table) -> None:
    """Adds the examples of one file."""
    layout.require(table, COLUMNS)
    frame = whole(table, COLUMNS)
    lists = enumerate(frame["history_item_id"].to_list())
    layout.add(
        table,
        users=frame["user_id"],
        histories=[literal_list(table, record, text) for record, text in lists],
        targets=frame["item_id"].to_list(),
    )


def literal_list(table: Table, record: int, text: str | None) -> list[str]:
    """`[2801, 3856]` or `['B01', 'B02']` -> ids as text.

    Raises:
        DataError: anything else.
    """
    if not text:
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        value = None
    if not isinstance(value, list) or not all(isinstance(item, str | int) for item in value):
        expected, cure = "a list of ids such as [2801, 3856]", "fix the record"
        raise fault(table, record, "a history is no list", got=repr(text[:80]), expected=expected, cure=cure)
    return [str(item) for item in value]
