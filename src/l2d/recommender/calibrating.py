"""auto and recall of a run: what they are made of, and the constants that validation chooses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from l2d.artifacts import read_arrays, sha256_file, write_arrays
from l2d.decode import (
    Calibration,
    Constants,
    Materials,
    Recall,
    Spread,
    TitleMap,
    after_items,
    calibrate,
    calibrate_recall,
    enough,
    fit_fading,
    recalled,
)
from l2d.errors import ArtifactBusy, ArtifactCorrupt, ArtifactMissing
from l2d.interactions import Examples
from l2d.memory import Entries, aggregate
from l2d.recommender.making import StageProgress, sample_users, silent

if TYPE_CHECKING:
    from l2d.recommender.opening import OpenRun

SPREAD = ("centre", "total", "within")
TITLE_MAP = ("mean", "scale", "weight", "bias")


def calibrate_run(run: OpenRun, *, seed: int, progress: StageProgress) -> Calibration:
    """Fits auto and recall on validation, from training entries alone; never reads the test split. Returns auto's."""
    constants = run.constants
    entries, catalog = run.train_entries, run.catalog
    items = aggregate(entries, len(catalog))
    titles = title_thoughts(run, range(len(catalog)), partial(progress, "reading titles"))
    title_map = TitleMap.fit(titles, items, seed)
    materials = Materials(run.train_evidence, entries, items, Spread.of(entries, items), title_map(titles))
    some = enough(len(run.dataset.splits.valid), len(catalog))
    valid = sample_users(run.dataset.splits.valid, some, np.random.default_rng([seed, 31]))
    requests = run.requests(valid.histories(), think=True)
    asked = (requests, valid.target, valid.user)
    found = calibrate(materials, *asked, seed=seed, progress=partial(progress, "calibrating"))
    after = after_items(entries, run.dataset.splits.train, titles)
    other = calibrate_recall(materials, after, *asked, seed=seed, progress=partial(progress, "calibrating recall"))
    write_arrays(run.run.waiting(run.run.calibration.name), _kept(materials.spread, title_map, titles, after, seed))
    fading = fit_fading(entries, len(catalog), run.dataset.splits.valid.target)
    go_over(run, replace(constants, auto=found, recall=other, cold=fading), calibrated=True)
    return found


def go_over(run: OpenRun, constants: Constants, *, calibrated: bool) -> None:
    """Goes over to constants and, if `calibrated`, to the `calibration.npz` that waits, in one step; else to none."""
    place = run.run
    names = [place.constants.name, *([place.calibration.name] if calibrated else [])]
    constants.save(place.waiting(place.constants.name))
    digests = {name: sha256_file(place.waiting(name)) for name in names}
    replace_parts(run, names, constants=digests[place.constants.name], calibration=digests.get(place.calibration.name))


def replace_parts(run: OpenRun, names: Sequence[str], **changed: Any) -> None:
    """Goes over to parts that wait; if that fails, the open run has the manifest that is on the disk then."""
    try:
        run.manifest = run.run.replace_parts(run.manifest, names, **changed)
    except BaseException:
        run.manifest = run.run.read_manifest()
        raise


def measure_again(run: OpenRun, train: Examples, entries: Entries, progress: StageProgress) -> dict[str, NDArray[Any]]:
    """What `calibration.npz` has to hold once entries are gone: all that was made of them, made of those that are left.

    The constants stay as they were fitted. Of titles, only those are read that no calibration has read yet.

    Args:
        run: opened and calibrated.
        train: the training examples that are left.
        entries: of these.
        progress: called with (stage, done, total).

    Raises:
        ArtifactMissing: not calibrated.
        ArtifactCorrupt: `calibration.npz` changed.
        ArtifactBusy: another process replaced it; `refresh` the run.
    """
    arrays, rows = _arrays(run), len(run.catalog)
    titles, seed = arrays.get("alone", np.empty((0, entries.width), np.float32)), int(arrays.get("seed", 0))
    if len(titles) < rows:
        unread = title_thoughts(run, range(len(titles), rows), partial(progress, "reading titles"))
        titles = np.concatenate([titles, unread])
    items = aggregate(entries, rows)
    after = after_items(entries, train, titles) if "after" in arrays else None
    return _kept(Spread.of(entries, items), TitleMap.fit(titles, items, seed), titles, after, seed)


def _kept(
    spread: Spread, title_map: TitleMap, titles: NDArray[np.float32], after: NDArray[np.float32] | None, seed: int
) -> dict[str, NDArray[Any]]:
    """What `calibration.npz` holds, by name."""
    arrays = {"text": title_map(titles), "alone": titles, "seed": np.array(seed)}
    arrays |= {} if after is None else {"after": after}
    arrays |= {f"spread_{part}": getattr(spread, part) for part in SPREAD}
    return arrays | {f"titles_{part}": getattr(title_map, part) for part in TITLE_MAP}


def open_materials(run: OpenRun) -> Materials:
    """What auto answers from: all of the memory, and what the calibration measured.

    Raises:
        ArtifactMissing: not calibrated yet.
        ArtifactCorrupt: `calibration.npz` changed.
        ArtifactBusy: another process replaced it; `refresh` the run.
    """
    arrays = _arrays(run)
    spread = Spread(*(arrays[f"spread_{part}"] for part in SPREAD))
    text = arrays["text"]
    later = len(run.catalog) - len(text)
    if later:
        text = np.concatenate([text, np.array(run.added["vector"].to_list()[-later:], dtype=np.float32)])
    return Materials(run.evidence, run.entries, run.item_vectors, spread, text)


def open_recall(run: OpenRun) -> Recall:
    """The decoder recall; after an item that was added later stands the thought of that item alone.

    Raises:
        ArtifactMissing: not calibrated yet, or before there was a recall.
        ArtifactCorrupt: `calibration.npz` changed.
        ArtifactBusy: another process replaced it; `refresh` the run.
    """
    fitted, arrays = run.constants.recall, _arrays(run)
    if fitted is None:
        raise ArtifactMissing(f"{run.path} was calibrated without recall", cure=f"run `l2d calibrate {run.path}` again")
    after = arrays["after"]
    if len(after) < len(run.catalog):
        alone = title_thoughts(run, range(len(after), len(run.catalog)), partial(silent, "reading titles"))
        after = np.concatenate([after, alone])
    return Recall(recalled(run.auto.materials, after), fitted.recipe)


def open_title_map(run: OpenRun) -> TitleMap:
    """From thoughts of titles to item vectors, as calibrated; errors as for `open_materials`."""
    arrays = _arrays(run)
    return TitleMap(*(arrays[f"titles_{part}"] for part in TITLE_MAP))


def _arrays(run: OpenRun) -> dict[str, NDArray[Any]]:
    file = run.run.part(run.run.calibration.name, run.manifest)
    if run.constants.auto is None or not file.is_file():
        raise ArtifactMissing(f"{run.path} is not calibrated", cure=f"run `l2d calibrate {run.path}` first")
    if sha256_file(file) != run.manifest.get("calibration"):
        if run.run.read_manifest() != run.manifest:
            raise ArtifactBusy(f"{file} is another one now", cure="open it again, another process wrote to it")
        cure = f"run `l2d calibrate {run.path}` again"
        raise ArtifactCorrupt(f"{file} was changed since it was written", cure=cure)
    return read_arrays(file)


def title_thoughts(run: OpenRun, rows: range, progress: partial[None]) -> NDArray[np.float32]:
    """Thoughts of histories that hold one item alone. Shape: (rows, width)."""
    prompts = [run.prompts.prompt(np.array([row], dtype=np.int32)) for row in rows]
    return run.thinker.think(prompts, progress)
