"""Offline thoughts: packs against padded batches of similar length, and against one prompt at a time.

    python benchmarks/speed/offline.py --run runs/amazon-cds
    python benchmarks/speed/offline.py --backbones 0.6b --dtype bfloat16 --slices 3 --prompts 32

The prompts are those of a memory build, in its order: runs of neighbours, evenly spaced over the training split. Each
run is thought packed, padded and one by one, in turn, by the same model. The rival's tokens per batch are chosen for
it beforehand. Beside the ratio of times stands that of tokens: of the whole split, which takes no model, of the
sample, and of the places of the sample, padding of both sides included.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import given
import padding
import turns
from l2d.backbone import probe_packing
from l2d.memory.build import plan
from l2d.packing import pack
from l2d.thoughts import TorchThinker
from l2d.thoughts.torch_engine import LEAST_SHARED

BATCHES = (512, 1024, 2048, 4096, 8192)
"""Tokens per batch that are tried for the rival."""

SAME = {"float32": 1e-4, "bfloat16": 0.1}
"""Largest difference of thoughts over their scale that is still the same computation."""

Ids = NDArray[np.int32]


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = given.arguments(__doc__)
    parser.add_argument("--slices", type=int, default=8, help="runs of neighbouring prompts")
    parser.add_argument("--prompts", type=int, default=512, help="prompts of a run")
    parser.add_argument("--pack-tokens", type=int, help="instead of the engine's own")
    parser.add_argument("--batch-tokens", type=int, help="instead of the engine's own")
    options = given.settled(parser.parse_args(arguments))
    if options.smoke:
        options.slices, options.prompts = 2, 24
    rows = [measured(one, options) for one in given.every(options)]
    record = {"threads": options.threads, "rows": rows}
    turns.keep(f"offline-{options.data}", record, options)
    return record


def measured(one: given.Given, options: argparse.Namespace) -> dict[str, Any]:
    """The row of one combination, printed."""
    probe = probe_packing(one.backbone, longest=one.prompts.max_tokens)
    opening = one.prompts.opening
    thinker = TorchThinker(
        one.backbone.settle(), probe, opening=opening,
        pack_tokens=options.pack_tokens, batch_tokens=options.batch_tokens,
    )  # fmt: skip
    planned = plan(one.dataset.splits.train, one.prompts, one.dataset.catalog)
    start = time.perf_counter()
    whole = sharing([[planned.prompts[place] for place in shard] for shard in planned.shards], thinker, opening)
    seconds = time.perf_counter() - start
    slices = spaced(planned.prompts, np.concatenate(planned.shards), options.slices, options.prompts)
    batch = fitting_batch(one, slices[0], BATCHES[:2] if options.smoke else BATCHES)
    thoughts = thinker.think(slices[0])
    error = float(
        np.abs(padding.think(one.backbone.states_at, slices[0], batch) - thoughts).max() / np.abs(thoughts).max()
    )
    described = one.described()
    if error > SAME[str(described["dtype"])]:
        raise SystemExit(f"packed and padded thoughts differ by {error:.1e} of their scale: nothing to compare")
    calls = {
        "packed": thinker.think,
        "padded": lambda prompts: padding.think(one.backbone.states_at, prompts, batch),
        "one_by_one": lambda prompts: [padding.think(one.backbone.states_at, [prompt], batch) for prompt in prompts],
    }
    with turns.Places(one.backbone) as count:
        found = turns.timed({name: count(name, call) for name, call in calls.items()}, slices, "packed", warmup=0)
    sample = {**sharing(slices, thinker, opening), "places": dict(count.found)}
    row = {
        **described,
        "pack_tokens": thinker.pack_tokens,
        "batch_tokens": thinker.batch_tokens,
        "padded_batch_tokens": batch,
        "difference": error,
        "whole": {**whole, "packing_seconds": seconds},
        "sample": {**sample, "place_ratio": count.found["padded"] / count.found["packed"]},
        **found,
    }
    row["prompts_per_second"] = {name: 1000 * options.prompts / ms for name, ms in found["median_ms"].items()}
    over = found["over_packed"]
    print(
        f"{one.data:13} {described['template']:9} {one.shape:5} tokens {whole['token_ratio']:.2f}x (all), "
        f"{sample['token_ratio']:.2f}x, places {row['sample']['place_ratio']:.2f}x;  "
        f"time: padded {turns.shown(over['padded'])}, one by one {turns.shown(over['one_by_one'])}",
        flush=True,
    )
    return row


def sharing(shards: Sequence[Sequence[Ids]], thinker: TorchThinker, opening: Ids) -> dict[str, Any]:
    """Tokens of prompts, and nodes of their packs; an opening of some length is read once for all of them."""
    tokens = sum(len(prompt) for shard in shards for prompt in shard)
    known = len(opening) - 1 if len(opening) >= LEAST_SHARED else 0
    behind = [[prompt[known:] for prompt in shard] for shard in shards]
    nodes = known + sum(len(tree) for shard in behind for tree in pack(shard, thinker.pack_tokens))
    return {"prompts": sum(map(len, shards)), "tokens": tokens, "nodes": nodes, "token_ratio": tokens / nodes}


def spaced(prompts: Sequence[Ids], order: NDArray[np.int64], slices: int, size: int) -> list[list[Ids]]:
    """Runs of neighbours, evenly spaced over an order."""
    starts = np.linspace(0, max(0, len(order) - size), slices).astype(np.int64)
    return [[prompts[place] for place in order[start : start + size]] for start in starts]


def fitting_batch(one: given.Given, prompts: Sequence[Ids], choices: Sequence[int]) -> int:
    """Tokens per batch with which the rival is fastest on every fourth of these prompts."""
    some = prompts[::4]
    calls = {
        str(tokens): lambda _, tokens=tokens: padding.think(one.backbone.states_at, some, tokens) for tokens in choices
    }
    found = turns.timed(calls, [0, 1, 2], str(choices[0]), warmup=0)["median_ms"]
    return int(min(found, key=found.__getitem__))


if __name__ == "__main__":
    main()
