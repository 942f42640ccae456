"""A log of later interactions, for a run that is there already: ids and times alone, in the order of time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from l2d.errors import DataError
from l2d.sources.columns import Columns
from l2d.sources.detect import detect
from l2d.sources.formats import FORMATS, LOG, check
from l2d.sources.gather import gather
from l2d.sources.log import locate
from l2d.sources.reading import Progress, Request
from l2d.sources.tables import open_table
from l2d.sources.times import NO_INSTANT, SECOND


@dataclass(frozen=True)
class Arrivals:
    """Interactions in the order of their times, those of one instant as in the file.

    Args:
        user_ids: one per interaction.
        item_ids: one per interaction.
        timestamp: unix seconds. Shape: (interactions,), int64.
        untimed: records that were left out since they have no time.
    """

    user_ids: list[str]
    item_ids: list[str]
    timestamp: NDArray[np.int64]
    untimed: int

    def __len__(self) -> int:
        return len(self.timestamp)


def read_arrivals(
    source: Path, *, format: str = "auto", columns: Columns | None = None, progress: Progress | None = None
) -> Arrivals:
    """Reads a log; titles are not needed in a table, and its item file is not looked at.

    Args:
        source: a file or folder.
        format: one of the log formats of `FORMATS`; `auto` recognises it.
        columns: given names; the rest is recognised.
        progress: told how many records were read, of about how many.

    Raises:
        ConfigError: a column is named that this format fixes.
        DataError: ready examples or sequences and no log, no time column, or a bad file.
        ArtifactMissing: no such file.
    """
    named = columns or Columns()
    name = detect(source, named)[0] if format == "auto" else format
    if name not in FORMATS or FORMATS[name].splits != LOG:
        logs = [other for other, form in FORMATS.items() if form.splits == LOG]
        raise DataError(f"{source} is no log", got=f"format {name}", expected=" or ".join(logs))
    check(name, None, named, 1)
    if name == "log":
        reading = gather(open_table(locate(source)[0]), named, titles=False, progress=progress)
    else:
        reading = FORMATS[name].read(Request(source, columns=named, progress=progress))
    if not reading.timed:
        raise DataError(f"{source} has no time column", cure="name it with --time-column")
    order = np.argsort(reading.instant, kind="stable")
    order = order[reading.instant[order] != NO_INSTANT]
    return Arrivals(
        [reading.user_ids[user] for user in reading.user[order].tolist()],
        [reading.item_ids[item] for item in reading.item[order].tolist()],
        reading.instant[order] // SECOND,
        len(reading.instant) - len(order),
    )
