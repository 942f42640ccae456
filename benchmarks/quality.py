"""What does the whole path reach on real data? prepare; tune; memory build; evaluate, with the default settings.

    python benchmarks/quality.py amazon-cds                      # writes results/quality-amazon-cds.json
    python benchmarks/quality.py amazon-beauty --epochs 6 --max-title-tokens 16

Data are looked for in $L2D_DATA (default ../shared/data beside the checkout). The test split is evaluated once, after
everything was chosen on validation. Wall time per stage is written beside the figures; it is that of the machine named
in the file, whatever else ran on it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # before transformers is loaded

from l2d import Recommender, prepare
from l2d.artifacts import atomic_folder, write_json
from lines import Lines
from origin import RESULTS, data_folder, origin

DECODERS = ("global", "local", "vote", "popularity", "transitions", "cooccurrence", "repeat-last")


class Stopwatch(Lines):
    """Seconds of each stage, and lines about them on stderr."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[str, float] = {}

    def run(self, stage: str, call: Any) -> Any:
        """Times one stage and returns what it made."""
        start = time.perf_counter()
        result = call()
        self.seconds[stage] = round(time.perf_counter() - start, 1)
        self.notice(f"{stage}: {self.seconds[stage]} s")
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="folder below the data folder")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="where the run directory goes")
    parser.add_argument("--backbone", default="scratch:small")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--max-title-tokens", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on with a tuning that was stopped")
    parser.add_argument("--json", type=Path, help="result file; default benchmarks/results/quality-NAME.json")
    options = parser.parse_args()
    source = data_folder() / options.name
    if not source.is_dir():
        sys.exit(f"skipped: no {options.name} in {source.parent}; set L2D_DATA to the folder that holds it")
    watch = Stopwatch()
    dataset = watch.run("prepare", lambda: prepare(source))
    with atomic_folder(options.out / f"{options.name}-data", overwrite=True) as folder:
        dataset.save(folder)
    told = {"progress": watch.progress, "notice": watch.notice}
    run = watch.run(
        "tune",
        lambda: Recommender.tune(
            dataset, backbone=options.backbone, out=options.out / options.name,
            epochs=options.epochs, seed=options.seed, max_title_tokens=options.max_title_tokens,
            resume=options.resume, overwrite=not options.resume, **told,
        ),
    )  # fmt: skip
    info = watch.run("memory build", lambda: run.build_memory(**told))
    valid = watch.run("evaluate valid", lambda: run.evaluate(DECODERS, split="valid", timing=False, **told))
    test = watch.run("evaluate test", lambda: run.evaluate(DECODERS, split="test", **told))
    record = {
        "data": options.name, "backbone": options.backbone, "seed": options.seed, "options": run.manifest["tuning"],
        "max_title_tokens": options.max_title_tokens, "resumed": options.resume, **origin(),
        "seconds": watch.seconds, "memory_entries": info.entries, "fitted": {
            "local_neighbours": run.constants.local_neighbours, "vote_neighbours": run.constants.vote_neighbours,
            "vote_temperature": run.constants.vote_temperature,
        },
        "valid": valid.to_json(), "test": test.to_json(),
    }  # fmt: skip
    write_json(options.json or RESULTS / f"quality-{options.name}.json", record)
    for split, report in (("valid", valid), ("test", test)):
        for name, row in report.rows.items():
            metrics, later = row.evaluation.metrics, row.evaluation.slices["later"]
            figures = f"HR@10 {metrics['hr@10']:.4f}  NDCG@10 {metrics['ndcg@10']:.4f}  HR@50 {metrics['hr@50']:.4f}"
            print(f"{split:5} {name:13} {figures}  later HR@10 {later.get('hr@10', float('nan')):.4f}")


if __name__ == "__main__":
    main()
