"""The whole path on the embedded demo shop: data, tuning, memory, calibration, table."""

from __future__ import annotations

from pathlib import Path

from l2d.interactions import Dataset, split_by_time
from l2d.recommender.facade import Recommender
from l2d.recommender.making import Notice, StageProgress, silent
from l2d.recommender.measuring import Report
from l2d.sources.demo import demo_world
from l2d.tuning import TuningConfig

ROWS = ("global", "local", "vote", "auto", "beam", "popularity", "cooccurrence")
"""Decoders of the quickstart's table."""

TUNING = TuningConfig(epochs=10, tokens_per_batch=1024, learning_rate=3e-3, dropout=0.1, evaluations=4)
"""A tiny model on a small shop: more and smaller steps than the defaults, in about a minute on two cores."""


def demo_dataset() -> Dataset:
    """The demo shop, cut by global time."""
    catalog, interactions = demo_world()
    info = {"format": "demo", "split": "temporal", "warnings": [], "report": []}
    return Dataset(catalog, interactions, split_by_time(interactions), info)


def quickstart(
    out: Path, *, overwrite: bool = False, progress: StageProgress = silent, notice: Notice = silent
) -> tuple[Recommender, Report]:
    """Tunes `scratch:tiny` on the demo shop, builds and calibrates a memory, compares decoders on the test split."""
    run = Recommender.tune(
        demo_dataset(),
        backbone="scratch:tiny",
        out=out,
        config=TUNING,
        overwrite=overwrite,
        progress=progress,
        notice=notice,
    )
    run.build_memory(progress=progress, notice=notice)
    run.calibrate(progress=progress)
    return run, run.evaluate(ROWS, split="test", progress=progress, notice=notice)
