"""recall: what the thought says and what each item of the history brings to mind by itself, added as probabilities.

The last item of a history weighs most in a thought, and older ones fade out of it. Yet after each item alone there is a
thought, too, and the items that are probable given that one stand in a table: links from item to item that come from
latent space and not from counts. auto reads them as it reads counts, so that a request still costs one thought.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2d.decode.auto import Auto, Materials, Recipe
from l2d.decode.calibrate import GRID, WITHOUT, Calibration, calibrate
from l2d.errors import ConfigError
from l2d.evidence import Evidence, Links, blocks
from l2d.interactions import Examples
from l2d.memory import Entries, run_sums
from l2d.ranking import Requests, Rows, top_k

MOST = 200
"""Links kept from each item: the most probable ones."""

TITLE = 2.0
"""Thoughts after longer histories that the thought of the item alone is worth."""

TRIED: Mapping[str, tuple[float | None, ...]] = {
    name: values for name, values in GRID.items() if name not in ("shrinkage", "text")
}
"""What is tried for each constant. Shrinkage was fitted as 3, 3 and 1 for thoughts alone on three sets, and a title's
weight is worth least of all: both keep their defaults, nine values less to try in every round."""

INGREDIENTS: Mapping[str, Mapping[str, float | None]] = {
    name.replace("counts", "links"): off for name, off in WITHOUT.items()
}
"""Each ingredient, and the constants that take it out."""


def after_items(
    entries: Entries, train: Examples, alone: NDArray[np.float32], weight: float = TITLE
) -> NDArray[np.float32]:
    """Mean thought of the prompts that end in each item. Shape: (items, width).

    Args:
        entries: the memory of the training examples; `sample` says which example an entry is.
        train: those examples.
        alone: thoughts of histories that hold one item alone, for every item. Shape: (items, width).
        weight: thoughts of longer prompts that the item's own is worth; above 0.

    Raises:
        ConfigError: an entry is of none of the examples.
    """
    place = train.places(entries.sample)
    if (place < 0).any():
        stranger = entries.sample[place < 0][0]
        raise ConfigError("an entry has no training example", got=f"sample {stranger}", expected="a sample of train")
    full = np.flatnonzero(train.history_length[place] > 0)
    last = train.interactions.row[train.end[place[full]] - 1]
    order = np.argsort(last, kind="stable")
    rows, starts = np.unique(last[order], return_index=True)
    sums = weight * alone.astype(np.float64)
    sums[rows] += run_sums(entries.thoughts[full[order]], starts)
    return (sums / (weight + np.bincount(last, minlength=len(alone)))[:, None]).astype(np.float32)


def recalled(
    materials: Materials, after: NDArray[np.float32], recipe: Recipe | None = None, most: int = MOST
) -> Materials:
    """The same materials with links from latent space in the place of counts.

    The link from u to v is the probability of v given the thought after u; of each u the `most` largest are kept.

    Args:
        materials: memory, spread and titles.
        after: the thought after each item, see `after_items`. Shape: (items, width).
        recipe: constants of the classes; None for the defaults, which suit these links whatever a calibration
            chooses for reading them.
        most: links of an item, at least 1.

    Raises:
        ConfigError: `most` below 1, or thoughts that are not one per item.
    """
    items = len(materials.items)
    if most < 1 or len(after) != items:
        raise ConfigError("cannot link items", got=f"most {most}, {len(after)} thoughts", expected=f"{items} thoughts")
    classes, kept = materials.classes(recipe or Recipe()), min(most, items)
    targets, weights = [], []
    for block in blocks(items, items):
        said = classes.probabilities(after[block])
        best = np.sort(top_k(said, kept).rows, axis=1)
        targets.append(best)
        weights.append(np.take_along_axis(said, best, axis=1).astype(np.float64))
    target, weight = np.concatenate(targets), np.concatenate(weights)
    positive = weight > 0
    starts = np.concatenate([[0], np.cumsum(positive.sum(axis=1))]).astype(np.int64)
    links = Links(starts, target[positive], weight[positive])
    return replace(materials, evidence=Evidence(materials.items.counts, links, links))


class Recall(Auto):
    """auto on the materials of `recalled`: ranks by the thought and by what the history's items bring to mind."""

    name = "recall"


def calibrate_recall(
    materials: Materials,
    after: NDArray[np.float32],
    requests: Requests,
    targets: Rows,
    users: NDArray[np.integer[Any]],
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Calibration:
    """Chooses the constants of recall as `calibrate` does those of auto; arguments and errors as there.

    Args:
        materials: as for auto; `recalled` is made of them.
        after: the thought after each item, see `after_items`. Shape: (items, width).
        requests: validation requests with thoughts.
        targets: the row that came next. Shape: (requests,).
        users: whose requests they are. Shape: (requests,).
        seed: of the halves, and of the items that are withheld.
        progress: called with steps (done, total).
    """
    return calibrate(
        recalled(materials, after), requests, targets, users,
        grid=TRIED, name=Recall.name, without=INGREDIENTS, seed=seed, progress=progress,
    )  # fmt: skip
