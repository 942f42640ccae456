"""Speed table "growth": how the time of an answer grows with items, entries, history and k, each against itself.

    python benchmarks/speed/growth.py [--most-items 1000000] [--most-entries 10000000]

Memories are generated (width 256, ten entries per item), histories are read by a scratch:small with random weights.
Each line's sizes are timed in turn within one run; a slope is the power of the size by which the upper half grows.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from l2d.backbone import probe_packing
from l2d.catalog import Catalog
from l2d.decode import Global, Vote
from l2d.memory import Entries, ItemVectors, aggregate
from l2d.prompts import COMPACT, Prompts
from l2d.ranking import Requests
from l2d.thoughts import TorchThinker
from turns import arguments, keep, shaped, timed

WIDTH = 256
BLOCK = 1 << 15
NEIGHBOURS = 200

MEANING = {
    "items": "global reads every item vector once: a floor of fixed costs, then proportional to the items.",
    "entries": "vote reads every entry once: proportional to the entries from where they outgrow the cache.",
    "history": "the prefill reads each token once, and each token looks at all before it: little more than "
    "proportional, above a floor of fixed costs per layer.",
    "k": "the scan does not depend on k; what grows is measuring and sorting the k best.",
}


def drawn(n: int, width: int, dtype: type, seed: int = 0) -> NDArray[Any]:
    """Random vectors around 1,000 centres, block by block."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((1000, width), dtype=np.float32)
    vectors = np.empty((n, width), dtype=dtype)
    for start in range(0, n, BLOCK):
        size = min(BLOCK, n - start)
        vectors[start : start + size] = rng.standard_normal((size, width), dtype=np.float32)
        vectors[start : start + size] += centres[rng.integers(0, len(centres), size)]
    return vectors


def items_of(n: int, options: argparse.Namespace) -> ItemVectors:
    """Vectors of items with an entry each."""
    return ItemVectors(drawn(n, options.width, np.float32), np.ones(n, dtype=np.int64))


def entries_of(n: int, options: argparse.Namespace) -> tuple[Entries, ItemVectors]:
    """A memory of ten entries per item, and its item vectors."""
    items = max(10, n // 10)
    row = np.random.default_rng(1).integers(0, items, n).astype(np.int32)
    zeros = np.zeros(n, np.int32)
    entries = Entries(drawn(n, options.width, np.float16), row, zeros, zeros.astype(np.int64), np.arange(n), ("u",))
    return entries, aggregate(entries, items)


def line(calls: Mapping[int, Callable[[Any], object]], inputs: list[Any], rounds: int) -> dict[str, Any]:
    """Times sizes in turn, each over that of the smallest, with the slope of the upper half in log-log."""
    named = {f"{size:,}": call for size, call in calls.items()}
    first = next(iter(named))
    found = timed(named, inputs[:rounds], first, warmup=2)
    sizes = np.array([*calls], dtype=np.float64)
    medians = np.array([found["median_ms"][name] for name in named])
    upper = slice((len(sizes) - 1) // 2, None)
    slope = float(np.polyfit(np.log(sizes[upper]), np.log(medians[upper]), 1)[0])
    over = dict(zip(named, (medians / medians[0]).tolist(), strict=True))
    return {**found, "times_the_smallest": over, "slope": slope}


def by_items(options: argparse.Namespace, thoughts: NDArray[np.float32]) -> dict[str, Any]:
    sizes = [10**power for power in range(3, 7) if 10**power <= options.most_items]
    decoders = {size: Global(items_of(size, options)) for size in sizes}
    return line(answers(decoders), requests(thoughts), options.rounds)


def by_entries(options: argparse.Namespace, thoughts: NDArray[np.float32]) -> dict[str, Any]:
    sizes = [10**power for power in range(4, 8) if 10**power <= options.most_entries]
    decoders = {size: Vote(*entries_of(size, options), NEIGHBOURS, 200.0) for size in sizes}
    return line(answers(decoders), requests(thoughts), options.rounds)


def by_k(options: argparse.Namespace, thoughts: NDArray[np.float32]) -> dict[str, Any]:
    size = min(100_000, options.most_items)
    decoder = Global(items_of(size, options))
    sizes = [k for k in (1, 10, 100, 1000) if k <= size]
    calls = {k: (lambda request, k=k: decoder.rank(request, k)) for k in sizes}
    return {"items": size, **line(calls, requests(thoughts), options.rounds)}


def by_history(options: argparse.Namespace) -> dict[str, Any]:
    rng = np.random.default_rng(2)
    words = [f"{a}{b}" for a in ("night", "river", "gold", "winter", "blue", "long") for b in ("song", "road", "light")]
    catalog = Catalog.from_titles([" ".join(rng.choice(words, 4)) + f" {row}" for row in range(500)])
    body = shaped("tiny" if options.smoke else "5m", catalog.titles)
    prompts = Prompts.compile(COMPACT, body.tokenizer, catalog)
    thinker = TorchThinker(body.settle(), probe_packing(body, longest=256), opening=prompts.opening)
    sizes = (5, 20) if options.smoke else (5, 10, 20, 50, 100, 200)
    histories = [rng.integers(0, 500, max(sizes)).astype(np.int32) for _ in range(options.rounds)]
    calls = {size: (lambda history, size=size: thinker.think([prompts.prompt(history[:size])])) for size in sizes}
    tokens = {size: len(prompts.prompt(histories[0][:size])) for size in sizes}
    return {"tokens": tokens, **line(calls, histories, options.rounds)}


def answers(decoders: Mapping[int, Any]) -> dict[int, Callable[[Any], object]]:
    return {size: (lambda request, decoder=decoder: decoder.rank(request, 10)) for size, decoder in decoders.items()}


def requests(thoughts: NDArray[np.float32]) -> list[Requests]:
    return [Requests([np.empty(0, np.int32)], thought[None]) for thought in thoughts]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--most-items", type=int, default=1_000_000)
    parser.add_argument("--most-entries", type=int, default=10_000_000)
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.smoke:
        options.most_items, options.most_entries, options.width, options.rounds = 10_000, 100_000, 16, 3
    thoughts = drawn(64, options.width, np.float32)
    lines = {
        "items": by_items(options, thoughts),
        "entries": by_entries(options, thoughts),
        "history": by_history(options),
        "k": by_k(options, thoughts),
    }
    for name, found in lines.items():
        grown = ", ".join(f"{size}: {ratio:.2f}x" for size, ratio in found["times_the_smallest"].items())
        print(f"{name}: {grown}; slope {found['slope']:.2f}: {MEANING[name]}")
    kept = {name: {**found, "meaning": MEANING[name]} for name, found in lines.items()}
    keep("growth", {"threads": torch.get_num_threads(), "width": options.width, "lines": kept}, options)


if __name__ == "__main__":
    sys.exit(main())
