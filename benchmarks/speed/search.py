"""Speed table "search": the exact search against FAISS and numpy, both on the same points and with as many threads.

    python benchmarks/speed/search.py [--points 100000 1000000] [--width 1024] [--batches 1 32]

Points are drawn around 1,000 centres, as items cluster; requests are points with noise. The exact search takes float32
vectors, as item vectors are (scanned as a float16 copy), and float16 ones, as a memory stores them (scanned where they
lie). Recall is that of the ten nearest against brute force in float32, and ties count as found.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from l2d.memory import Points
from l2d.memory.nearest.products import fastest
from turns import arguments, keep, shown, timed

K = 10
BLOCK = 1 << 15

Search = Callable[[NDArray[np.float32]], NDArray[np.integer[Any]]]


def drawn(points: int, width: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Clustered points, made block by block, and requests near some of them."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((1000, width), dtype=np.float32)
    vectors = np.empty((points, width), dtype=np.float32)
    for start in range(0, points, BLOCK):
        block = vectors[start : start + BLOCK]
        rng.standard_normal(out=block, dtype=np.float32)
        block += centres[rng.integers(0, len(centres), len(block))]
    near = vectors[rng.integers(0, points, 256)]
    return vectors, near + rng.standard_normal(near.shape, dtype=np.float32) / 2


def ours(points: Points) -> Search:
    """The exact search."""

    def search(thoughts: NDArray[np.float32]) -> NDArray[np.integer[Any]]:
        near = points.near(thoughts, K).first(K)
        return near.index.reshape(len(thoughts), -1)

    return search


def by_faiss(vectors: NDArray[np.float32], threads: int) -> tuple[Search, NDArray[np.float32]] | None:
    """IndexFlatL2 and the vectors it holds, which the others take too; None where FAISS is not installed."""
    try:
        import faiss
    except ImportError:
        return None
    faiss.omp_set_num_threads(threads)
    index = faiss.IndexFlatL2(vectors.shape[1])
    index.add(vectors)
    held = faiss.rev_swig_ptr(index.get_xb(), vectors.size).reshape(vectors.shape)
    return lambda thoughts: index.search(thoughts, K)[1], held


def by_numpy(vectors: NDArray[np.float32]) -> Search:
    """|p|^2 - 2 p t in one product, the ten smallest by partition."""
    squares = np.einsum("ij,ij->i", vectors, vectors)

    def search(thoughts: NDArray[np.float32]) -> NDArray[np.integer[Any]]:
        values = squares - 2 * (thoughts @ vectors.T)
        return np.argpartition(values, K, axis=1)[:, :K]

    return search


def recall(
    found: NDArray[np.integer[Any]],
    vectors: NDArray[Any],
    thoughts: NDArray[np.float32],
    true: NDArray[np.floating[Any]],
) -> float:
    """Share of the found points that are no farther than the tenth of the brute force, up to float32's rounding."""
    away = vectors[found].astype(np.float64) - thoughts[:, None]
    squared = np.einsum("ijk,ijk->ij", away, away)
    return float((squared <= true[:, None] * (1 + 1e-5)).mean())


def tenth(vectors: NDArray[Any], thoughts: NDArray[np.float32]) -> NDArray[np.float64]:
    """Squared distance of each request's tenth neighbour, by differences in float32, block by block."""
    best = np.full((len(thoughts), K), np.inf)
    for start in range(0, len(vectors), 2048):
        block = vectors[start : start + 2048].astype(np.float32)
        for line, thought in enumerate(thoughts):
            away = block - thought
            squared = np.einsum("ij,ij->i", away, away)
            best[line] = np.sort(np.concatenate([best[line], squared]))[:K]
    return best[:, -1]


def table(points: int, options: argparse.Namespace) -> dict[str, Any]:
    """All contestants on so many points."""
    threads = torch.get_num_threads()
    vectors, thoughts = drawn(points, options.width)
    flat = by_faiss(vectors, threads)
    running: dict[str, Search] = {}
    if flat is not None:
        running["faiss flat"], vectors = flat  # and let the first copy go
    stored = vectors.astype(np.float16)
    running |= {"ours, float16": ours(Points(stored)), "ours, float32": ours(Points(vectors))}
    running["numpy"] = by_numpy(vectors)
    against = "faiss flat" if "faiss flat" in running else "numpy"
    judged = thoughts[: options.judged]
    true = {"ours, float16": tenth(stored, judged), "others": tenth(vectors, judged)}
    record: dict[str, Any] = {
        "recall@10": {
            name: recall(
                call(judged), stored if name == "ours, float16" else vectors, judged, true.get(name, true["others"])
            )
            for name, call in running.items()
        }
    }
    print(f"{points:,} x {options.width}, {threads} threads; recall@10 {record['recall@10']}")
    for batch in options.batches:
        inputs = [thoughts[start % 224 : start % 224 + batch] for start in range(0, options.rounds * batch, batch)]
        found = timed(running, inputs, against, warmup=2)
        record[f"batch {batch}"] = {
            **found,
            "product": fastest(batch).name,
            "faster": {name: 1 / ratio["median"] for name, ratio in found[f"over_{against}"].items()},
        }
        for name, ratio in found[f"over_{against}"].items():
            print(f"  batch {batch}: {name} / {against} {shown(ratio)}: {1 / ratio['median']:.1f} times as fast")
    return record


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--points", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--judged", type=int, default=32, help="requests that recall is measured on")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.smoke:
        options.points, options.width, options.rounds, options.judged = [3000], 32, 3, 8
    record = {f"{points} x {options.width}": table(points, options) for points in options.points}
    keep("search", {"threads": torch.get_num_threads(), "k": K, "tables": record}, options)


if __name__ == "__main__":
    sys.exit(main())
