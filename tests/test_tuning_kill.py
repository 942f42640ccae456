"""SIGKILL while tuning, in a step and inside the save of a checkpoint: a resumed run ends with the same weights."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scale import KILLS, count

HERE = Path(__file__).resolve().parent
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(HERE.parent / "src"), str(HERE)]),
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
}

DRIVER = """
import hashlib, json, os, signal, sys
from pathlib import Path
import numpy as np, torch
from families import TITLES
from l2d.backbone import probe_packing, scratch_backbone
from l2d.catalog import Catalog
from l2d.interactions import Interactions, examples_of
from l2d.prompts import COMPACT, Prompts
from l2d.tuning import TuningConfig, TuningPlan, tune
from l2d.tuning import trainer

folder, step, place = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
torch.set_num_threads(1)
die = lambda: os.kill(os.getpid(), signal.SIGKILL)

generator = np.random.default_rng(0)
user = np.repeat(np.arange(30, dtype=np.int32), 8)
row = generator.integers(0, len(TITLES), size=240).astype(np.int32)
names = tuple(f"user {index}" for index in range(30))
examples = examples_of(Interactions(names, user, row, np.arange(240, dtype=np.int64)), 6)
catalog = Catalog.from_titles(TITLES)
config = TuningConfig(epochs=3, tokens_per_batch=120, accumulation=2, pack_tokens=64, window=4, precision="float32",
                      evaluations=6, patience=3)

class Logged(TuningPlan):
    def batch(self, index):
        packs = super().batch(index)
        digest = hashlib.sha256(b"".join(tree.ids.tobytes() for tree in packs)).hexdigest()
        with (folder / "batches.jsonl").open("a") as file:
            file.write(json.dumps([index, digest]) + "\\n")
        return packs

backbone = scratch_backbone("scratch:tiny", TITLES, seed=5)
prompts = Prompts.compile(COMPACT, backbone.tokenizer, catalog)
plan = Logged(examples, prompts, tokens=120, pack_tokens=64, window=4, seed=5)

def progress(done, total):
    (folder / "total").write_text(str(total))
    if place == "step" and done == step:
        die()

mark = trainer.mark_complete
def dying_mark(checkpoint, done):
    if place == "save" and done >= step:
        die()
    mark(checkpoint, done)
trainer.mark_complete = dying_mark

write = torch.save
def dying_write(value, target, *args, **kwargs):
    # The optimizer's file is half there, as when the machine goes down in the middle of it.
    write(value, target, *args, **kwargs)
    if place == "write" and int((folder / "last").read_text()) >= step:
        os.truncate(target, os.path.getsize(target) // 2)
        die()
torch.save = dying_write

def score(model):
    # Falls after its peak, and is not a matter of luck: the norm of the weights against a fixed one.
    (folder / "last").write_text(str(trainer_step[0]))
    return -abs(float(model.model.lm_head.weight.norm()) - 40.0)

trainer_step = [0]
def counted(done, total):
    trainer_step[0] = done
    progress(done, total)

(folder / "last").write_text("0")
notices = []
tune(backbone, plan, config, folder, probe=probe_packing(backbone, longest=256), score=score, resume=True,
     progress=counted, notice=notices.append)
digest = hashlib.sha256(b"".join(w.numpy().tobytes() for w in backbone.model.state_dict().values())).hexdigest()
print(json.dumps({"weights": digest, "resumed": notices[0], "fingerprint": backbone.fingerprint}))
"""


def drive(folder: Path, step: int = 0, place: str = "nowhere") -> dict[str, str] | None:
    """Runs or resumes the tuning in a process of its own; None where it was killed."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-c", DRIVER, str(folder), str(step), place]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT, timeout=300)
    if done.returncode == -signal.SIGKILL:
        return None
    assert done.returncode == 0, done.stderr
    report: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return report


def batches(folder: Path) -> list[tuple[int, str]]:
    return [tuple(json.loads(line)) for line in (folder / "batches.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], dict[int, str], int]:
    """The report of a run that nobody killed, its batches, and its steps."""
    folder = tmp_path_factory.mktemp("whole")
    report = drive(folder)
    assert report is not None
    assert "nothing complete" in report["resumed"]
    order = batches(folder)
    assert [index for index, _ in order] == list(range(len(order))), "batches are taken in order"
    return report, dict(order), int((folder / "total").read_text())


def kill_and_resume(
    folder: Path, whole: tuple[dict[str, str], dict[int, str], int], deaths: list[tuple[int, str]]
) -> None:
    """Dies at each of the places, checking what is left each time; then ends as the whole run did."""
    expected, order, _ = whole
    for step, place in deaths:
        assert drive(folder, step, place) is None, f"was to die at {place} {step}"
        if place != "step":
            unmarked = [path for path in (folder / "checkpoints").iterdir() if not (path / "complete.json").is_file()]
            assert unmarked, "died inside a save"
    before = {path.name for path in (folder / "checkpoints").glob("*") if (path / "complete.json").is_file()}
    newest = max(before, key=lambda name: int(name.split("-")[1]), default=None)
    seen = len(batches(folder))
    report = drive(folder)
    assert report is not None
    assert report["resumed"] == (f"resuming from {newest}" if newest else report["resumed"])
    assert ("nothing complete" in report["resumed"]) == (newest is None)
    assert report["weights"] == expected["weights"]
    assert report["fingerprint"] == expected["fingerprint"]
    assert all(order[index] == digest for index, digest in batches(folder)), "the same samples in the same step"
    first = 2 * int(newest.split("-")[1]) if newest else 0
    fresh = [index for index, _ in batches(folder)[seen:]]
    assert [index for index in fresh if index >= first] == list(range(first, len(order)))


def test_a_killed_run_ends_as_one_that_was_not(
    tmp_path: Path, whole: tuple[dict[str, str], dict[int, str], int]
) -> None:
    """One kill inside a save, whose checkpoint must not count, then one in a step."""
    middle = whole[2] // 2
    kill_and_resume(tmp_path / "run", whole, [(middle, "save"), (middle + 2, "step")])


@pytest.mark.long
def test_many_kills(tmp_path: Path, whole: tuple[dict[str, str], dict[int, str], int]) -> None:
    """Kills at random places, each run resuming the one before."""
    generator = random.Random(0)
    steps = sorted(generator.randint(1, whole[2] - 2) for _ in range(KILLS))
    deaths = [(step, generator.choice(["step", "save", "write"])) for step in steps]
    for number in range(0, KILLS, 5):
        kill_and_resume(tmp_path / f"run {number}", whole, deaths[number : number + 5])
    places = [place for _, place in deaths]
    count("killed tuning", kills=KILLS, **{f"in_a_{place}": places.count(place) for place in sorted(set(places))})
