"""How much memory does it take to prepare a log of 20 million interactions?

    python benchmarks/prepare_memory.py            # 20 million, about two minutes, writes results/prepare_memory.json
    python benchmarks/prepare_memory.py --smoke    # 100,000

A log is generated (string ids, Zipf-popular items, times in order), then prepared and saved in a process of its own,
whose peak resident memory the operating system tells.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from origin import RESULTS, origin

CHUNK = 1_000_000
LIMIT_GIB = 4.0


def generate(folder: Path, rows: int, seed: int, format: str) -> Path:
    """Writes log.csv or log.jsonl and items.csv, a chunk at a time. A user has 13 interactions on average."""
    generator = np.random.default_rng(seed)
    users, items = max(10, rows * 3 // 40), max(10, min(200_000, rows // 100))
    path = folder / f"log.{format}"
    with path.open("wb") as file:
        for start in range(0, rows, CHUNK):
            n = min(CHUNK, rows - start)
            frame = pl.DataFrame(
                {
                    "user_id": generator.integers(0, users, n) * 7919 + 10**9,
                    "item_id": generator.zipf(1.3, n) % items,
                    "timestamp": 1_400_000_000 + start * 10 + np.sort(generator.integers(0, n * 10, n)),
                }
            ).with_columns(pl.format("U{}X", "user_id").alias("user_id"), pl.format("B{}", "item_id").alias("item_id"))
            if format == "jsonl":
                frame.write_ndjson(file)
            else:
                frame.write_csv(file, include_header=start == 0)
    titles = pl.DataFrame({"item_id": [f"B{item}" for item in range(items)]})
    titles.with_columns(title=pl.format("Title number {} of a shop", "item_id")).write_csv(folder / "items.csv")
    return path


def prepare(log: Path, out: Path) -> None:
    """The measured process: prepares, saves, prints its figures."""
    from l2d.sources import prepare as prepare_source

    started = time.perf_counter()
    dataset = prepare_source(log, items=log.with_name("items.csv"), format="log")
    prepared = time.perf_counter()
    out.mkdir()
    dataset.save(out)
    figures = {
        "peak_rss_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3),  # Linux counts in KiB
        "prepare_seconds": round(prepared - started, 1),
        "save_seconds": round(time.perf_counter() - prepared, 1),
        "interactions": len(dataset.interactions),
        "users": len(dataset.interactions.user_ids),
        "items": len(dataset.catalog),
        "train_examples": len(dataset.splits.train),
    }
    print(json.dumps(figures))


def measure(rows: int, seed: int, format: str, folder: Path | None) -> dict[str, Any]:
    """Generates, prepares in a subprocess, cleans up."""
    with tempfile.TemporaryDirectory(prefix="l2d-prepare-", dir=folder) as temporary:
        log = generate(Path(temporary), rows, seed, format)
        command = [sys.executable, __file__, "--measured", str(log), "--out", str(Path(temporary) / "data")]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "src")}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode != 0:
            raise SystemExit(done.stderr)
        return {"rows": rows, "format": format, "log_bytes": log.stat().st_size, **json.loads(done.stdout)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--format", choices=["csv", "jsonl"], default="csv")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="100,000 rows")
    parser.add_argument("--folder", type=Path, help="where the generated log goes, 1.5 GB (default: the system's)")
    parser.add_argument("--out", type=Path, default=RESULTS / "prepare_memory.json")
    parser.add_argument("--measured", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measured:
        prepare(options.measured, options.out)
        return
    result = measure(100_000 if options.smoke else options.rows, options.seed, options.format, options.folder)
    result |= {"limit_gib": LIMIT_GIB, "seed": options.seed, **origin()}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    if result["peak_rss_gib"] > LIMIT_GIB:
        raise SystemExit(f"peak memory {result['peak_rss_gib']} GiB is over {LIMIT_GIB} GiB")


if __name__ == "__main__":
    main()
