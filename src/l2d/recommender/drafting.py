"""The small backbone that drafts for a run's own: same tokenizer, same prompts, tuned on the same samples."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from l2d.backbone import Backbone, drafter_backbone, probe_packing
from l2d.baselines.peers import Shelf, Trained, open_peer
from l2d.tuning import TuningConfig, TuningPlan, tune

if TYPE_CHECKING:
    from l2d.recommender.opening import OpenRun

EPOCHS = 8
"""Passes over the training samples: a drafter need not be good, only often of the same opinion."""


def open_drafter(
    run: OpenRun, folder: Path, identity: Mapping[str, str], seed: int, progress: Callable[[int, int], None]
) -> Backbone:
    """The run's drafter, loaded from the folder or tuned; a tuning that was stopped goes on.

    Args:
        run: for whose backbone it drafts.
        folder: where it is kept.
        identity: fingerprints of what it depends on.
        seed: of weights, order and dropout.
        progress: called with steps (done, total); not at all where it is loaded.

    Raises:
        ArtifactCorrupt: what is kept in the folder is damaged.
    """
    drafter = drafter_backbone(run.backbone, seed=seed)
    config = TuningConfig.for_scratch().with_values(epochs=EPOCHS, evaluations=0, seed=seed)

    def learn(_: Shelf | None) -> Trained:
        probe = probe_packing(drafter, longest=run.prompts.max_tokens)
        plan = TuningPlan(
            run.dataset.splits.train, run.prompts, config.tokens_per_batch, config.pack_tokens, config.window, seed
        )
        tune(drafter, plan, config, folder, probe=probe, resume=True, progress=progress)
        return Trained({name: weights.detach() for name, weights in drafter.model.named_parameters()}, [])

    trained = open_peer(folder, {"peer": "drafter", **identity}, config, learn)
    # Names of parameters, and not of the whole state: tied weights are there once.
    drafter.model.load_state_dict(trained.weights, strict=False)
    drafter.take(drafter.model)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return drafter
