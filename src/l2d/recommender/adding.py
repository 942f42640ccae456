"""Items that join a run by their title alone, and metadata that changes: kept beside the prepared data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import polars as pl

from l2d.artifacts import atomic_file, sha256_file, sha256_text
from l2d.catalog import CANONICAL_INTEGER, Catalog, Metadata
from l2d.catalog.metadata import whole
from l2d.errors import ArtifactCorrupt, ArtifactMissing, DataError
from l2d.interactions import Dataset
from l2d.recommender.calibrating import open_title_map, title_thoughts
from l2d.recommender.making import StageProgress
from l2d.recommender.reading import TRIES, read_data
from l2d.run import ADDED, Run

if TYPE_CHECKING:
    from l2d.recommender.opening import OpenRun

SCHEMA = pl.Schema({"item_id": pl.String(), "title": pl.String(), "vector": pl.List(pl.Float32())})
DESCRIBED = pl.Schema({"item_id": pl.String()})

LONGEST_ID, LONGEST_TITLE = 500, 2_000
"""Characters of an id and of a title."""


@dataclass(frozen=True)
class Item:
    """An item as it is to be.

    Args:
        item_id: its id.
        title: its title; None for a known item's own.
        metadata: JSON values by column: text, numbers, truth values, or lists of one of these; None for none given.
    """

    item_id: str | int
    title: str | None = None
    metadata: Metadata | None = None


@dataclass(frozen=True)
class Added:
    """What `add_items` or `put_items` did.

    Args:
        added: items that are new.
        known: items that were there already, under the same title.
        recommendable: whether new ones may be recommended at once; else after `l2d calibrate`.
        updated: known items whose metadata was set.
    """

    added: int
    known: int
    recommendable: bool
    updated: int = 0


def put_items(run: OpenRun, items: Sequence[Item], *, progress: StageProgress) -> Added:
    """Adds items and sets metadata; see `Recommender.put_items`.

    One new file holds all added items, another all metadata that was ever set, and the manifest goes over to both in
    one step: whenever the process is killed, either all of it is there or nothing.
    """
    new = _new(run, items)
    metadata = {str(item.item_id): item.metadata for item in items if item.metadata}
    calibrated = run.run.constants.is_file() and run.calibrated
    result = Added(len(new), len(items) - len(new), calibrated, len(metadata.keys() - new.keys()))
    if not new and not metadata:
        return result
    catalog = run.catalog.extended(new, metadata)
    before = [run.manifest[part]["file"] for part in ADDED if run.manifest.get(part)]
    kept = (run.dataset, run.prompts)
    try:
        _write(run, catalog, new, metadata, calibrated, progress)
    except BaseException:
        if new:
            run.read(*kept)
        raise
    for name in set(before) - {run.manifest[part]["file"] for part in ADDED if run.manifest.get(part)}:
        (run.path / name).unlink(missing_ok=True)
    return result


def _new(run: OpenRun, items: Sequence[Item]) -> dict[str, str]:
    """Titles of the items that are not known yet, by id."""
    old = {item: run.catalog.titles[row] for row, item in enumerate(run.catalog.item_ids)}
    seen: set[str] = set()
    new: dict[str, str] = {}
    for name, title in ((str(item.item_id), item.title) for item in items):
        if name in seen:
            raise DataError("an item id occurs twice", got=repr(name), expected="each id once", cure="merge the items")
        seen.add(name)
        _check(name, title, old.get(name))
        if name not in old:
            assert title is not None
            new[name] = title
    strange = [item for item in new if run.catalog.integer_ids and not CANONICAL_INTEGER.fullmatch(item)]
    if strange:  # one such id would turn all ids of all answers from numbers into text
        raise DataError(
            "an id is not an integer", got=repr(strange[0]), expected="an integer, as all other ids of the run are",
            cure="give it such an id",
        )  # fmt: skip
    return new


def _check(item: str, title: str | None, known: str | None) -> None:
    """Refuses an id or a title that cannot be an item's."""
    if known is not None and title in (known, None):
        return
    if known is not None:
        raise DataError(
            "an item is known under another title", got=f"{item!r}: {title!r}"[:200], expected=repr(known),
            cure="give it a new id; the run was tuned with the old title",
        )  # fmt: skip
    if title is None or not title.strip() or len(title) > LONGEST_TITLE or not whole(title):
        raise DataError(
            "a new item has no title that can be read", got=f"{item!r}: {title!r}"[:200],
            expected=f"text of 1 to {LONGEST_TITLE} characters", cure="give it one",
        )  # fmt: skip
    if not item or len(item) > LONGEST_ID or not whole(item):
        raise DataError(
            "an id cannot be kept", got=repr(item)[:200], expected=f"text of 1 to {LONGEST_ID} characters",
            cure="give the item another id",
        )  # fmt: skip


def _write(
    run: OpenRun,
    catalog: Catalog,
    new: Mapping[str, str],
    metadata: Mapping[str, Metadata],
    calibrated: bool,
    progress: StageProgress,
) -> None:
    """Takes the open run over to a catalogue; writes what that has beyond the prepared one, and then the manifest."""
    named: dict[str, Any] = {}
    added, described = run.added, run.described
    if new:
        first = len(run.catalog)
        run.extend(catalog)
        columns: dict[str, Any] = {"item_id": list(new), "title": list(new.values()), "vector": [None] * len(new)}
        if calibrated:
            thoughts = title_thoughts(run, range(first, len(catalog)), partial(progress, "reading titles"))
            columns["vector"] = list(open_title_map(run)(thoughts))
        added = pl.concat([added, pl.DataFrame(columns, schema=SCHEMA)])
        named["items"] = _kept(run, "items", added, sha256_text(*added["item_id"], *added["title"], str(calibrated)))
    if metadata:
        touched = list(dict.fromkeys([*described["item_id"], *metadata]))
        assert catalog.metadata is not None
        described = catalog.metadata[catalog.rows(touched)].insert_column(0, pl.Series("item_id", touched, pl.String))
        named["metadata"] = _kept(run, "metadata", described, sha256_text(described.write_json()))
    run.manifest = run.run.record(run.manifest, **named)
    run.added, run.described = added, described
    if not new:  # nothing that was made of the items depends on it
        run.dataset = replace(run.dataset, catalog=catalog)


def _kept(run: OpenRun, part: str, frame: pl.DataFrame, digest: str) -> dict[str, str]:
    """Writes one file and says what it is called and what is in it."""
    place = run.path / f"{part}-{digest[:12]}.parquet"
    with atomic_file(place) as temporary:
        frame.write_parquet(temporary)
    return {"file": place.name, "sha256": sha256_file(place)}


def read_beside(
    place: Run, manifest: dict[str, Any], dataset: Dataset
) -> tuple[dict[str, Any], Dataset, pl.DataFrame, pl.DataFrame]:
    """Reads what was added to the data of a manifest; where a writer removed it meanwhile, the manifest that is there.

    Returns:
        Manifest and data that it belongs to; the items added so far, in the order of their rows: id, title, and the
        vector that the title predicts, or null; the metadata set so far: `item_id` of each item that any was set of,
        and all that is known of it.

    Raises:
        ArtifactMissing, ArtifactCorrupt: a file that the manifest names is gone, or changed.
    """
    tries = 0
    while True:
        tries += 1
        try:
            added = _read(place, manifest, "items", SCHEMA)
            return manifest, dataset, added, _read(place, manifest, "metadata", DESCRIBED)
        except (ArtifactCorrupt, ArtifactMissing, FileNotFoundError):
            if tries == TRIES or place.read_manifest() == manifest:
                raise
            manifest, dataset = read_data(place, verify=False)


def _read(place: Run, manifest: Mapping[str, Any], part: str, schema: pl.Schema) -> pl.DataFrame:
    kept = manifest.get(part)
    if kept is None:
        return pl.DataFrame(schema=schema)
    file = place.path / kept["file"]
    if not file.is_file():
        raise ArtifactMissing(f"{file} is not there", cure="restore it from a copy")
    if sha256_file(file) != kept["sha256"]:
        raise ArtifactCorrupt(f"{file} was changed since it was written", cure="restore it from a copy")
    return pl.read_parquet(file)
