"""The memory of a run: which examples it holds, and the constants fitted when it is there."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from l2d.decode import fit, fit_fading
from l2d.errors import ArtifactMismatch, ConfigError
from l2d.interactions import SPLITS, Examples, SplitName
from l2d.memory import Memory, aggregate, build
from l2d.memory.ledger import DType, Ledger, unclaimed
from l2d.recommender.calibrating import go_over
from l2d.recommender.making import StageProgress, sample_users

if TYPE_CHECKING:
    from l2d.recommender.facade import Recommender

THROUGH: dict[str, tuple[SplitName, ...]] = {
    "train": ("train",),
    "valid": ("train", "valid"),
    "all": ("train", "valid", "test"),
}
"""Which splits' examples a memory holds."""

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
    columns = (np.concatenate([getattr(part, side) for part in parts]) for side in ("start", "end", "sample"))
    examples = Examples(run.dataset.interactions, *columns)
    metadata = {"backbone": run.manifest["backbone"]["fingerprint"], "through": through, **thought_by}
    if not overwrite and _lived(run, examples, metadata, dtype):
        return
    build(
        run.run.memory,
        run.thinker,
        run.tuned_prompts,
        examples,
        run.tuned_catalog,
        dtype=dtype,
        metadata=metadata,
        overwrite=overwrite,
        progress=partial(progress, "thinking"),
    )


def _lived(run: Recommender, examples: Examples, metadata: dict[str, Any], dtype: DType) -> bool:
    """Whether a finished memory gained or lost entries since, and holds these examples beside others that came live."""
    if unclaimed(run.run.memory):
        return False
    ledger = Ledger.load(run.run.memory)
    if not (ledger.finished and ledger.lived and ledger.dtype == dtype):
        return False
    held = Memory.open(run.run.memory, expected=metadata).samples()
    prepared = np.concatenate([run.dataset.splits[name].sample for name in SPLITS])
    return np.array_equal(np.sort(held[np.isin(held, prepared)]), np.sort(examples.sample))


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
    fading = fit_fading(run.train_entries, len(run.catalog), run.dataset.splits.valid.target)
    go_over(run, replace(constants, cold=fading), calibrated=False)
