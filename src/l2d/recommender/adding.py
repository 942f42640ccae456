"""Items that join a run by their title alone, after tuning: kept beside the prepared data, which stays as it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import polars as pl

from l2d.artifacts import atomic_file, sha256_file, sha256_text
from l2d.catalog import CANONICAL_INTEGER
from l2d.errors import ArtifactCorrupt, ArtifactMissing, DataError
from l2d.recommender.calibrating import open_title_map, title_thoughts
from l2d.recommender.making import StageProgress
from l2d.run import Run

if TYPE_CHECKING:
    from l2d.recommender.opening import OpenRun

SCHEMA = pl.Schema({"item_id": pl.String(), "title": pl.String(), "vector": pl.List(pl.Float32())})


@dataclass(frozen=True)
class Added:
    """What `add_items` did.

    Args:
        added: items that are new.
        known: items that were there already, under the same title.
        recommendable: whether new ones may be recommended at once; else after `l2d calibrate`.
    """

    added: int
    known: int
    recommendable: bool


def add_items(run: OpenRun, titles: Mapping[str, str], *, progress: StageProgress) -> Added:
    """Adds items to the catalogue of a run; see `Recommender.add_items`.

    One new file holds all added items, and the manifest goes over to it in one step: whenever the process is killed,
    either all of the new items are there or none.
    """
    titles = {str(item): title for item, title in titles.items()}
    old = {item: run.catalog.titles[row] for row, item in enumerate(run.catalog.item_ids)}
    for item, title in titles.items():
        if old.get(item, title) != title:
            raise DataError(
                "an item is known under another title", got=f"{item!r}: {title!r}", expected=repr(old[item]),
                cure="give it a new id; the run was tuned with the old title",
            )  # fmt: skip
    new = {item: title for item, title in titles.items() if item not in old}
    strange = [item for item in new if run.catalog.integer_ids and not CANONICAL_INTEGER.fullmatch(item)]
    if strange:  # one such id would turn all ids of all answers from numbers into text
        raise DataError(
            "an id is not an integer", got=repr(strange[0]), expected="an integer, as all other ids of the run are",
            cure="give it such an id",
        )  # fmt: skip
    calibrated = run.run.constants.is_file() and run.calibrated
    if not new:
        return Added(0, len(titles), calibrated)
    before, kept = run.manifest.get("items"), (run.dataset, run.prompts)
    try:
        _write(run, new, calibrated, progress)
    except BaseException:
        run.read(*kept)
        raise
    if before is not None and before["file"] != run.manifest["items"]["file"]:
        (run.path / before["file"]).unlink(missing_ok=True)
    return Added(len(new), len(titles) - len(new), calibrated)


def _write(run: OpenRun, new: Mapping[str, str], calibrated: bool, progress: StageProgress) -> None:
    """Extends the open run, writes a file with all added items, and lets the manifest name it."""
    first = len(run.catalog)
    run.extend(run.catalog.extended(new))
    columns: dict[str, Any] = {"item_id": list(new), "title": list(new.values()), "vector": [None] * len(new)}
    if calibrated:
        thoughts = title_thoughts(run, range(first, len(run.catalog)), partial(progress, "reading titles"))
        columns["vector"] = list(open_title_map(run)(thoughts))
    frame = pl.concat([run.added, pl.DataFrame(columns, schema=SCHEMA)])
    place = run.path / f"items-{sha256_text(*frame['item_id'], *frame['title'], str(calibrated))[:12]}.parquet"
    with atomic_file(place) as temporary:
        frame.write_parquet(temporary)
    run.manifest = run.run.record(run.manifest, items={"file": place.name, "sha256": sha256_file(place)})
    run.added = frame


def read_added(place: Run, manifest: Mapping[str, Any]) -> pl.DataFrame:
    """The items added so far, in the order of their rows: id, title, and the vector that the title predicts, or null.

    Raises:
        ArtifactMissing, ArtifactCorrupt: the file that the manifest names is gone, or changed.
    """
    kept = manifest.get("items")
    if kept is None:
        return pl.DataFrame(schema=SCHEMA)
    file = place.path / kept["file"]
    if not file.is_file():
        raise ArtifactMissing(f"{file} is not there", cure="restore it from a copy")
    if sha256_file(file) != kept["sha256"]:
        raise ArtifactCorrupt(f"{file} was changed since it was written", cure="restore it from a copy")
    return pl.read_parquet(file)
