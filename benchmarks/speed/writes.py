"""Speed table "writes": what taking in one more entry costs, beside the thought that it is made of.

    python benchmarks/speed/writes.py [--entries 100000 1000000]

Memories are generated (width 256, ten entries per item); the thought is that of a prompt of 40 tokens or so by a
scratch:small with random weights. One write appends an entry and moves its item's vector, what is searched by, and the
classes of auto; the first write after a memory was opened also makes room for those to come. Writing to the journal
and to Lance is not in it. What it replaces is shown beside it: item vectors made of all entries anew.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from growth import drawn, entries_of
from l2d.backbone import probe_packing
from l2d.catalog import Catalog
from l2d.decode import Auto, Global, Materials, Recipe, Spread, Vote
from l2d.evidence import Evidence, Links
from l2d.memory import aggregate
from l2d.prompts import COMPACT, Prompts
from l2d.ranking import Requests
from l2d.thoughts import TorchThinker
from turns import arguments, keep, shaped, shown, timed

HISTORY = 10


def thinking(options: argparse.Namespace) -> Callable[[int], object]:
    """Thinks one history, another one each time."""
    rng = np.random.default_rng(2)
    words = [f"{a}{b}" for a in ("night", "river", "gold", "winter", "blue", "long") for b in ("song", "road", "light")]
    catalog = Catalog.from_titles([" ".join(rng.choice(words, 4)) + f" {row}" for row in range(500)])
    body = shaped("tiny" if options.smoke else "5m", catalog.titles)
    prompts = Prompts.compile(COMPACT, body.tokenizer, catalog)
    thinker = TorchThinker(body.settle(), probe_packing(body, longest=256), opening=prompts.opening)
    return lambda seed: thinker.think([prompts.prompt(np.random.default_rng(seed).integers(0, 500, HISTORY))])


def table(n: int, options: argparse.Namespace, think: Callable[[int], object]) -> dict[str, Any]:
    entries, items = entries_of(n, options)
    no_links = Links.from_keys(np.empty(0, np.int64), np.empty(0), len(items))
    spread = Spread.of(entries.first(10_000), aggregate(entries.first(10_000), len(items)))
    materials = Materials(Evidence(items.counts, no_links, no_links), entries, items, spread, items.vectors.copy())
    auto = Auto(materials, Recipe(half_life=60.0, newcomer=1.0))
    decoders = (Global(items), Vote(entries, items, 200, 200.0), auto)
    asked = Requests([np.empty(0, np.int32)], drawn(1, options.width, np.float32))
    for decoder in decoders:
        decoder.rank(asked, 10)
    rng, thoughts = np.random.default_rng(3), drawn(64, options.width, np.float16, seed=4)

    def write(seed: int) -> None:
        first = len(entries)
        row = rng.integers(0, len(items), 1).astype(np.int32)
        thought = thoughts[[seed % len(thoughts)]]
        entries.append(thought, row, [f"user {seed}"], np.array([seed * 3600]), np.array([first]))
        items.follow(entries, first)
        auto.follow(first)

    begun = timed({"first write": write, "thought": think}, [0], "thought", warmup=0)["over_thought"]["first write"]
    calls = {"thought": think, "write": write, "aggregate": lambda _: aggregate(entries, len(items))}
    found = timed(calls, range(1, 1 + options.rounds), "thought", warmup=2)
    return {
        "entries": n,
        "items": len(items),
        **found,
        "first_write_over_thought": begun,
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--entries", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.smoke:
        options.entries, options.width, options.rounds = [2_000], 16, 3
    think = thinking(options)
    rows = [table(n, options, think) for n in options.entries]
    for row in rows:
        over = row["over_thought"]
        print(
            f"{row['entries']:,} entries: a write takes {shown(over['write'])} of a thought, the first one "
            f"{row['first_write_over_thought']['median']:.1f}x, all item vectors anew {shown(over['aggregate'])}"
        )
    keep("writes", {"threads": torch.get_num_threads(), "width": options.width, "rows": rows}, options)


if __name__ == "__main__":
    sys.exit(main())
