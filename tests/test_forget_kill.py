"""SIGKILL anywhere in a forget: readers find the run as it was or as it becomes, and the next writer ends it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forgetful import ENVIRONMENT, PLANTED, enliven, make, shop_items
from l2d.recommender import Recommender
from scale import FULL, count

POINTS = 40 if FULL else 2
"""Places in each wish's course at which a process is killed; in every fourth, its recovery is killed, too."""

DRIVER = """
import json, os, shutil, signal, sys, time
from pathlib import Path
import numpy as np
import torch
import lance, l2d.decode, l2d.recommender
from forgetful import found, opened
from l2d.recommender import Recommender
from l2d.artifacts import read_arrays

torch.set_num_threads(1)
alive, folder, wishes, points = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]), int(sys.argv[4])
STEPS = {"replace", "rename", "unlink", "rmdir", "execute", "executemany", "executescript", "delete", "write_dataset",
         "compact_files", "fsync", "mkdir"}
HERE = os.sep + "l2d" + os.sep

def child(work):
    pid = os.fork()
    if not pid:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            import traceback; traceback.print_exc()
        finally:
            sys.stderr.flush(); os._exit(code)
    _, status = os.waitpid(pid, 0)
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)

def counted(work, last, note):
    # Dies at the last-th call of a function of ours, or of one that writes.
    calls = 0
    def at(frame, event, argument):
        nonlocal calls
        ours = event == "call" and HERE in frame.f_code.co_filename
        if ours or (event == "c_call" and argument.__name__ in STEPS):
            calls += 1
            if calls == last:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.setprofile(at)
    work()
    sys.setprofile(None)
    note.write_text(str(calls))

def state(path, wish, out):
    with opened(path) as run:
        live = run.live
        entries, log = live.entries(run.catalog), live.log()
        lists = run.recommend([run.catalog.item_id(3)], decoder="auto")
        known = {
            "users": np.array(entries.user_ids)[entries.user], "row": entries.row, "sample": entries.sample,
            "thoughts": entries.thoughts, "seq": log.seq, "log": np.array(log.user_ids),
            "items": np.array([item.item_id for item in lists]), "scores": np.array([item.score for item in lists]),
            "facts": np.array([run.dataset.fingerprint, str(len(live.journal.wishes()))]),
        }
    known |= {f"calibration {name}": array for name, array in read_arrays(path / "calibration.npz").items()}
    there = sorted(str(file.relative_to(path)) for file in path.rglob("*") if "memory.lance" not in str(file))
    left = sorted(found(path, [wish["user"].encode()])) if "user" in wish else []
    moving = "moving" in json.loads((path / "manifest.json").read_text())
    np.savez(out, left=np.array(left, dtype=str), there=np.array(there), moving=np.array(moving), **known)

def read(path, out):
    run = Recommender.load(path, device="cpu")
    run.recommend([run.catalog.item_id(3)], decoder="auto")
    out.write_text(run.dataset.fingerprint)

def attempt(name, wish, kill=0, again=0):
    path, note = folder / name, folder / (name + ".calls")
    shutil.copytree(alive, path)
    (path / "peers").mkdir()
    (path / "peers" / "x").write_text("x")
    def wished():
        with opened(path) as run:
            counted(lambda: run.forget(**wish), kill, note)
    code = child(wished) if kill >= 0 else 0
    assert code == (-9 if kill > 0 else 0), (name, kill, code)
    if kill > 0:
        assert child(lambda: read(path, folder / (name + ".read"))) == 0, (name, kill)
    if again:
        def recovered():
            with opened(path):
                pass
        assert child(lambda: counted(recovered, again, note)) in (0, -9), (name, kill, again)
    assert child(lambda: state(path, wish, folder / (name + ".npz"))) == 0, (name, kill, again)
    shutil.rmtree(path)
    return int(note.read_text()) if note.exists() else 0

rng, done = np.random.default_rng(0), {}
for name, wish in wishes.items():
    attempt(name + " untouched", wish, -1)
    calls = attempt(name, wish)
    steps = (np.linspace(0, 1, points + 2)[1:-1] * calls + rng.integers(-9, 9, points)).astype(int).tolist()
    done[name] = [f"{name} {place}" for place in range(points)]
    for place, kill in enumerate(steps):
        attempt(done[name][place], wish, kill, 0 if place % 4 else int(rng.integers(10, calls)))
print(json.dumps(done))
"""

WISHES: dict[str, dict[str, Any]] = {"user": {"user": PLANTED}, "item": {"item": shop_items(5)[0]}}


@pytest.fixture(scope="module")
def alive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make(tmp_path_factory.mktemp("alive"))
    enliven(path)
    return path


def test_a_forget_that_is_killed_anywhere_ends_as_one_that_was_not(alive: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", DRIVER, str(alive), str(tmp_path), json.dumps(WISHES), str(POINTS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT, timeout=3000)
    assert done.returncode == 0, done.stderr[-4000:]
    old = Recommender.load(alive, device="cpu").dataset.fingerprint
    for wish, attempts in json.loads(done.stdout.splitlines()[-1]).items():
        expected = dict(np.load(tmp_path / f"{wish}.npz"))
        new, wishes = expected["facts"].tolist()
        assert (wishes, len(expected["left"]), bool(expected["moving"])) == ("0", 0, False) and new != old
        untouched, recorded = dict(np.load(tmp_path / f"{wish} untouched.npz")), []
        for attempt in attempts:
            assert (tmp_path / f"{attempt}.read").read_text() in (old, new)
            got = dict(np.load(tmp_path / f"{attempt}.npz"))
            recorded.append(bool((got["facts"] == expected["facts"]).all()))
            wanted = expected if recorded[-1] else untouched
            assert got.keys() == wanted.keys()
            for part, value in wanted.items():
                if value.dtype.kind == "f":
                    np.testing.assert_allclose(got[part], value, atol=2e-3, err_msg=f"{attempt}: {part}")
                else:
                    np.testing.assert_array_equal(got[part], value, err_msg=f"{attempt}: {part}")
        assert recorded == sorted(recorded) and recorded[-1], "what was recorded once is fulfilled"
    count("killed forget", kills=POINTS * len(WISHES))
