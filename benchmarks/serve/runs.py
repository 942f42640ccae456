"""The runs that a server is measured with: made once, kept in a folder, and copied for each measurement that writes."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))
sys.path.insert(2, str(Path(__file__).resolve().parents[1] / "speed"))

import given
import turns
from l2d import Dataset, Recommender
from l2d.artifacts import sha256_text, write_json
from l2d.recommender.making import silent
from l2d.tuning import TuningConfig
from origin import RESULTS, origin

SHAPES = ("tiny", "5m", "22m")
"""Backbones: of the demo shop, of a tuned run that is given, and one with random weights."""

TEMPLATE = {"tiny": "compact", "5m": "compact", "22m": "instruct"}

LEFT_OUT = ("peers", "engines", "report", "live.sqlite*", ".writer")
"""What a copied run does without: trained opponents, exports, and what another server wrote."""


def kept() -> Path:
    """Where runs are kept from one measurement to the next: $L2D_SERVE_RUNS, or a folder for temporary files."""
    return Path(os.environ.get("L2D_SERVE_RUNS") or Path(tempfile.gettempdir()) / "l2d-serve-runs")


def prepared(shape: str, tuned: Path | None = None, data: str = "amazon-cds") -> Path:
    """A calibrated run of a shape; nothing writes to it.

    Args:
        shape: one of `SHAPES`.
        tuned: the run that stands for 5m.
        data: what the run of random weights is made on.

    Raises:
        SystemExit: 5m without a tuned run, or data that are not there.
    """
    if shape == "5m":
        if tuned is None:
            sys.exit("skipped: --run names the tuned run that stands for 5m")
        return tuned
    made, name = (_tiny, given.DEMO) if shape == "tiny" else (_random, data)
    return _once(f"{shape}-{name}", lambda out: made(out, name))


def _once(name: str, make: Callable[[Path], None]) -> Path:
    """A kept run, made where it is not there or was not finished."""
    place = kept() / name
    done = place.with_suffix(".done")
    if not done.is_file():
        shutil.rmtree(place, ignore_errors=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        make(place)
        done.touch()
    return place


def _tiny(out: Path, name: str) -> None:
    config = TuningConfig(epochs=1, tokens_per_batch=1024)
    run = Recommender.tune(given.dataset(name), backbone="scratch:tiny", out=out, config=config)
    run.build_memory()
    run.calibrate()


def _random(out: Path, name: str) -> None:
    """A model nobody has tuned, taken as one that was tuned elsewhere: times do not depend on what it has learnt."""
    dataset = given.dataset(name)
    with tempfile.TemporaryDirectory() as folder:
        turns.shaped("22m", dataset.catalog.titles).save(Path(folder))
        run = Recommender.adopt(dataset, backbone=folder, template=TEMPLATE["22m"], out=out, dtype="float32")
        progress = _shown if sys.stderr.isatty() else silent
        run.build_memory(progress=progress)
        run.calibrate(progress=progress)


def _shown(stage: str, done: int, total: int) -> None:
    print(f"\r{stage}: {done}/{total}   ", end="", file=sys.stderr)


def copied(run: Path, out: Path) -> Path:
    """A run to write to."""
    shutil.copytree(run, out, ignore=shutil.ignore_patterns(*LEFT_OUT))
    return out


@dataclass(frozen=True)
class Material:
    """What requests and writes are made of, in the words of a client.

    Args:
        histories: of validation and test users, oldest first.
        users: whose interactions are in the data.
        items: that have a memory entry or not.
    """

    histories: list[list[str | int]]
    users: list[str | int]
    items: list[str | int]

    @classmethod
    def of(cls, run: Path, *, seed: int = 0) -> Material:
        """Histories in random order, each at most once."""
        dataset = Dataset.load(run / "data")
        catalog, users = dataset.catalog, dataset.interactions.user_ids
        histories: dict[str, list[str | int]] = {}
        for name in ("test", "valid"):
            split = dataset.splits[name]
            for place in range(len(split)):
                rows = split.history(place)
                if len(rows):
                    made = [catalog.item_id(int(row)) for row in rows]
                    histories.setdefault(sha256_text(json.dumps(made)), made)
        generator = np.random.default_rng(seed)
        order = generator.permutation(len(histories)).tolist()
        listed = list(histories.values())
        return cls(
            [listed[place] for place in order],
            [user.item() if hasattr(user, "item") else user for user in users],
            [catalog.item_id(row) for row in range(len(catalog))],
        )


def arguments(documentation: str | None, *, shape: str) -> argparse.ArgumentParser:
    """The options that all measurements of a server have."""
    parser = argparse.ArgumentParser(description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="a demo shop and a few seconds, nothing written")
    parser.add_argument("--json", type=Path, help="result file; default benchmarks/results/serve-NAME.json")
    parser.add_argument("--run", type=Path, help="the tuned run that stands for 5m")
    parser.add_argument("--shape", choices=SHAPES, default=shape, help="of the backbone; default %(default)s")
    parser.add_argument("--serve", nargs=argparse.REMAINDER, default=[], help="last: further options of `l2d serve`")
    return parser


def keep(name: str, record: Mapping[str, Any], options: argparse.Namespace) -> None:
    """Writes a result with its origin; a smoke run writes only where it was told to."""
    path = options.json or (None if options.smoke else RESULTS / f"serve-{name}.json")
    if path is not None:
        write_json(path, {**record, **origin()})
