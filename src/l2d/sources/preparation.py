"""Source -> data set: load, split, and say what was done to how many."""

from __future__ import annotations

from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from l2d.catalog import Catalog
from l2d.interactions import (
    SPLITS,
    UNKNOWN_TIME,
    Dataset,
    Examples,
    Interactions,
    Splits,
    split_by_time,
    split_leave_last_out,
)
from l2d.sources.columns import Columns
from l2d.sources.formats import SplitRule
from l2d.sources.loading import Loaded, Options, load
from l2d.sources.reading import Progress, Request, Windows, note

YEAR_1990 = 631_152_000
DEFAULT_HISTORY = 10


def prepare(
    source: Path,
    *,
    items: Path | None = None,
    format: str = "auto",
    split: SplitRule | None = None,
    user_column: str | None = None,
    item_column: str | None = None,
    time_column: str | None = None,
    title_column: str | None = None,
    k_core: int = 1,
    max_history: int | None = None,
    max_title_words: int | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Reads a log or ready examples and makes the data set that every later stage works on.

    Args:
        source: a file or folder.
        items: the file with the titles, where it is not found by itself.
        format: a name in `FORMATS`; `auto` recognises it.
        split: `temporal` (two global times), `given` (the files' own) or `leave-last-out`; None: `given` for windows
            and d3, `leave-last-out` for sequences, else `temporal`.
        user_column: name of the user column; this and the next three are recognised when not given.
        item_column: name of the item column.
        time_column: name of the time column.
        title_column: name of the title column, in the log or the item file.
        k_core: keep only users and items with at least so many interactions each.
        max_history: most items in a history; None: 10, and given windows as they are.
        max_title_words: cut titles after so many words.
        progress: told how many records were read, of about how many.

    Returns:
        The data set; `info["report"]` is a list of records (action, what, count, why), `info["warnings"]` of sentences.

    Raises:
        InputError: the source, its content or the options have to change.
    """
    columns = Columns(user_column, item_column, time_column, title_column)
    options = Options(format, split, columns, k_core, max_history, max_title_words)
    loaded = load(Request(Path(source), None if items is None else Path(items), columns, progress), options)
    splits = split_of(loaded, options)
    return Dataset(loaded.catalog, loaded.interactions, splits, information(loaded, splits, options))


def read(
    source: Path,
    *,
    items: Path | None = None,
    format: str = "auto",
    columns: Columns | None = None,
    progress: Progress | None = None,
) -> tuple[Catalog, Interactions]:
    """Reads a source without splitting it: titles cleaned, duplicates and untitled items gone, times in order.

    Args:
        source: a file or folder.
        items: the file with the titles, where it is not found by itself.
        format: a name in `FORMATS`; `auto` recognises it.
        columns: column names; None: all are recognised.
        progress: told how many records were read, of about how many.

    Raises:
        InputError: the source, its content or the options have to change.
    """
    named = columns or Columns()
    request = Request(Path(source), None if items is None else Path(items), named, progress)
    loaded = load(request, Options(format, columns=named))
    return loaded.catalog, loaded.interactions


def split_of(loaded: Loaded, options: Options) -> Splits:
    """The examples, split as decided."""
    if loaded.windows is not None:
        return given_splits(loaded.interactions, loaded.windows, options.max_history)
    limit = options.max_history or DEFAULT_HISTORY
    if loaded.split == "temporal":
        return split_by_time(loaded.interactions, max_history=limit)
    return split_leave_last_out(loaded.interactions, max_history=limit)


def given_splits(interactions: Interactions, windows: Windows, max_history: int | None) -> Splits:
    """The files' own splits; a limit takes the oldest items off the histories."""
    start, end = windows.start, windows.end
    if max_history is not None:
        start = np.maximum(start, end - max_history)
    bounds = np.cumsum([0, *windows.sizes]).tolist()
    parts = (slice(*pair) for pair in pairwise(bounds))
    return Splits(*(Examples(interactions, start[part], end[part]) for part in parts))


def information(loaded: Loaded, splits: Splits, options: Options) -> dict[str, Any]:
    """What `Dataset.info` holds: facts, options, report, warnings."""
    interactions, windows = loaded.interactions, loaded.windows is not None
    notes = [
        *loaded.notes,
        note("kept", "users", len(interactions.user_ids)),
        note("kept", "items", len(loaded.catalog)),
    ]
    if not windows:
        single = int(np.count_nonzero(np.diff(interactions.user_starts) == 1))
        notes.append(note("kept", "interactions", len(interactions)))
        if single:
            notes.append(note("found", "users", single, "a single interaction: no example"))
    notes += [note("kept", f"{name} examples", len(splits[name])) for name in SPLITS]
    info = {
        **loaded.facts,
        "split": loaded.split,
        "options": asdict(options),
        "report": notes,
        "warnings": warnings_of(loaded, options),
    }
    return {**info, "windows": True} if windows else info


def warnings_of(loaded: Loaded, options: Options) -> list[str]:
    """What the reader of a result has to know."""
    found = []
    if loaded.split == "leave-last-out":
        found.append("leave-last-out leaks time: training may see items of other users later than a test target")
    if options.k_core > 1:
        found.append("the k-core looks at the whole log: the test period has a say in which users and items stay")
    latest = int(loaded.interactions.timestamp.max())
    if latest != UNKNOWN_TIME and latest < YEAR_1990:
        found.append(f"the latest time is {latest} s after 1970: if these are no unix times, only their order counts")
    return found
