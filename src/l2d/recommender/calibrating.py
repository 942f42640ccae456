"""auto and recall of a run: what they are made of, and the constants that validation chooses."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from l2d.artifacts import read_arrays, sha256_file, write_arrays
from l2d.decode import (
    Calibration,
    Materials,
    Recall,
    Spread,
    TitleMap,
    after_items,
    calibrate,
    calibrate_recall,
    enough,
    recalled,
)
from l2d.errors import ArtifactCorrupt, ArtifactMissing
from l2d.memory import aggregate
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
    materials = Materials(run.evidence, entries, items, Spread.of(entries, items), title_map(titles))
    some = enough(len(run.dataset.splits.valid), len(catalog))
    valid = sample_users(run.dataset.splits.valid, some, np.random.default_rng([seed, 31]))
    requests = run.requests(valid.histories(), think=True)
    asked = (requests, valid.target, valid.user)
    found = calibrate(materials, *asked, seed=seed, progress=partial(progress, "calibrating"))
    after = after_items(entries, run.dataset.splits.train, titles)
    other = calibrate_recall(materials, after, *asked, seed=seed, progress=partial(progress, "calibrating recall"))
    assert materials.text is not None
    arrays = {"text": materials.text, "after": after}
    arrays |= {f"spread_{part}": getattr(materials.spread, part) for part in SPREAD}
    arrays |= {f"titles_{part}": getattr(title_map, part) for part in TITLE_MAP}
    write_arrays(run.run.calibration, arrays)
    replace(constants, auto=found, recall=other).save(run.run.constants)
    run.manifest = run.run.record_constants(run.manifest)
    return found


def open_materials(run: OpenRun) -> Materials:
    """What auto answers from: all of the memory, and what the calibration measured.

    Raises:
        ArtifactMissing: not calibrated yet.
        ArtifactCorrupt: `calibration.npz` changed.
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
    if run.constants.auto is None or not run.run.calibration.is_file():
        raise ArtifactMissing(f"{run.path} is not calibrated", cure=f"run `l2d calibrate {run.path}` first")
    if sha256_file(run.run.calibration) != run.manifest.get("calibration"):
        cure = f"run `l2d calibrate {run.path}` again"
        raise ArtifactCorrupt(f"{run.run.calibration} was changed since it was written", cure=cure)
    return read_arrays(run.run.calibration)


def title_thoughts(run: OpenRun, rows: range, progress: partial[None]) -> NDArray[np.float32]:
    """Thoughts of histories that hold one item alone. Shape: (rows, width)."""
    prompts = [run.prompts.prompt(np.array([row], dtype=np.int32)) for row in rows]
    return run.thinker.think(prompts, progress)
