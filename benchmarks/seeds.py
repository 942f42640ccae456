"""How much of a difference is the luck of one training? The same rows from runs that were tuned with other seeds.

    python benchmarks/quality.py amazon-cds --seed 1 --out runs-1 --json quality-1.json      # and so on
    python benchmarks/seeds.py amazon-cds --run runs/amazon-cds --run runs-1/amazon-cds --run runs-2/amazon-cds

Each run's decoders are judged on the whole split; its item head and its SASRec are trained with the seed that it was
tuned with. Writes results/seeds-NAME.json.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # before transformers is loaded

from l2d import Recommender
from l2d.artifacts import write_json
from lines import Lines
from origin import RESULTS, origin

ROWS = ("global", "local", "vote", "item-head", "sasrec")
METRICS = ("hr@10", "ndcg@10", "hr@50")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="for the result file")
    parser.add_argument("--run", type=Path, action="append", required=True, help="a run with a memory; one per seed")
    parser.add_argument("--split", default="test")
    options = parser.parse_args()
    lines = Lines()
    found: dict[int, dict[str, dict[str, float]]] = {}
    for path in options.run:
        run = Recommender.load(path)
        seed = run.manifest["tuning"]["seed"]
        if seed in found:
            sys.exit(f"two of the runs were tuned with seed {seed}")
        lines.notice(f"{path}: seed {seed}")
        compared = run.compare(
            ROWS, split=options.split, seed=seed, timed=0, curves=False, progress=lines.progress, notice=lines.notice
        )
        rows = compared.to_json()["rows"]
        found[seed] = {name: {metric: rows[name]["metrics"][metric] for metric in METRICS} for name in ROWS}
    record = {"data": options.name, "split": options.split, "seeds": list(found), "rows": spread(found), **origin()}
    write_json(RESULTS / f"seeds-{options.name}.json", record)
    for name, row in record["rows"].items():
        print(f"{name:10}", "  ".join(f"{m} {f['mean']:.4f} +- {f['deviation']:.4f}" for m, f in row.items()))


def spread(found: dict[int, dict[str, dict[str, float]]]) -> dict[str, dict[str, Any]]:
    """Mean, standard deviation (of a sample) and the single figures of each row and metric."""
    rows: dict[str, dict[str, Any]] = {}
    for name in ROWS:
        rows[name] = {}
        for metric in METRICS:
            values = [rows_of_seed[name][metric] for rows_of_seed in found.values()]
            deviation = statistics.stdev(values) if len(values) > 1 else 0.0
            rows[name][metric] = {"mean": statistics.mean(values), "deviation": deviation, "values": values}
    return rows


if __name__ == "__main__":
    main()
