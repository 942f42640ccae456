"""The memory of a run: which examples it holds, and the constants fitted when it is there."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from l2d.decode import fit
from l2d.errors import ArtifactMismatch, ConfigError
from l2d.interactions import Examples, SplitName
from l2d.memory import aggregate, build
from l2d.memory.ledger import DType, Ledger, unclaimed
from l2d.recommender.making import StageProgress, sample_users

if TYPE_CHECKING:
    from l2d.recommender.facade import Recommender

THROUGH: dict[str, tuple[SplitName, ...]] = {
    "train": ("train",),
    "valid": ("train", "valid"),
    "all": ("train", "valid", "test"),
}
"""Which splits' examples a memory holds, in the order of its samples."""

FIT_EXAMPLES = 2_000
"""Validation examples that the constants are fitted on, about."""


def remember(run: Recommender, *, through: str, dtype: DType, overwrite: bool, progress: StageProgress) -> None:
    """Builds the memory, or goes on with it."""
    if through not in THROUGH:
        raise ConfigError("unknown extent of a memory", got=through, expected=", ".join(THROUGH))
    if not overwrite:
        _check_engine(run)
    thought_by = {} if run.engine.name == "torch" else {"engine": run.engine.name}
    parts = [run.dataset.splits[name] for name in THROUGH[through]]
    starts, ends = (np.concatenate([getattr(part, side) for part in parts]) for side in ("start", "end"))
    build(
        run.run.memory,
        run.thinker,
        run.tuned_prompts,
        Examples(run.dataset.interactions, starts, ends),
        run.tuned_catalog,
        dtype=dtype,
        metadata={"backbone": run.manifest["backbone"]["fingerprint"], "through": through, **thought_by},
        overwrite=overwrite,
        progress=partial(progress, "thinking"),
    )


def _check_engine(run: Recommender) -> None:
    """Refuses to go on with a memory that another engine began: a resumed build must equal one that was not stopped."""
    if unclaimed(run.run.memory):
        return
    there = Ledger.load(run.run.memory).metadata.get("engine", "torch")
    if there != run.engine.name:
        raise ArtifactMismatch(
            f"the memory in {run.run.memory} was thought by another engine", got=there, expected=run.engine.name,
            cure=f"pass --engine {there.partition('-')[0]}, or --overwrite to build it anew",
        )  # fmt: skip


def fit_constants(run: Recommender, progress: StageProgress) -> None:
    """Fits M and tau on validation, from the training entries alone, whatever else the memory holds."""
    valid = sample_users(run.dataset.splits.valid, FIT_EXAMPLES, np.random.default_rng(0))
    constants = fit(
        run.train_entries,
        aggregate(run.train_entries, len(run.catalog)),
        run.requests(valid.histories(), think=True),
        valid.target,
        progress=partial(progress, "fitting"),
    )
    constants.save(run.run.constants)
    run.run.calibration.unlink(missing_ok=True)
    run.manifest = run.run.record_constants(run.manifest)
