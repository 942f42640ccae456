"""Tuning in two processes is tuning in one that accumulates over two batches: same weights, one run directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(Path(__file__).resolve().parent.parent / "src"),
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    # A machine whose own name cannot be resolved can still talk to itself.
    "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",
}

DRIVER = """
import sys
from l2d.recommender import Recommender
from l2d.testing import toy_world
from l2d.tuning import TuningConfig

out, accumulation = sys.argv[1], int(sys.argv[2])
config = TuningConfig(epochs=4, tokens_per_batch=60, pack_tokens=32, window=4, accumulation=accumulation, dropout=0.0,
                      precision="float32", evaluations=2)
Recommender.tune(toy_world().dataset, backbone="scratch:tiny", out=out, config=config, notice=print, device="cpu")
"""


def tuned(folder: Path, *, processes: int, accumulation: int) -> tuple[dict[str, torch.Tensor], str]:
    driver = folder / "driver.py"
    driver.write_text(DRIVER)
    out = folder / f"run-{processes}"
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    command = [sys.executable, *launch, str(driver), str(out), str(accumulation)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return load_file(out / "backbone" / "model.safetensors"), done.stdout


def test_two_processes_make_the_weights_of_one_that_accumulates(tmp_path: Path) -> None:
    # The divisor of the loss is the answer weight of a whole step, over all processes; batches differ in theirs.
    expected, alone = tuned(tmp_path, processes=1, accumulation=2)
    found, together = tuned(tmp_path, processes=2, accumulation=1)
    assert expected.keys() == found.keys()
    for name, weights in expected.items():
        torch.testing.assert_close(found[name], weights, rtol=1e-4, atol=1e-5, msg=name)
    assert together == alone, "only one process may talk, and about the same steps"
    one, two = (
        [json.loads(line) for line in (tmp_path / f"run-{count}" / "metrics.jsonl").read_text().splitlines()]
        for count in (1, 2)
    )
    assert [record["step"] for record in one] == [record["step"] for record in two]
    # AdamW and clipping hide a wrong divisor from the weights; the gradient's norm and the loss show it.
    for figure in ("grad_norm", "loss", "eval_ndcg@10"):
        found_there, expected_there = ([record[figure] for record in log if figure in record] for log in (two, one))
        assert expected_there and found_there == pytest.approx(expected_there, rel=1e-3)
