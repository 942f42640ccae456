"""What do auto and recall add to the time of a request? A backbone's prefill alone, and with a decoder behind it.

    python benchmarks/auto_time.py amazon-cds --backbone scratch:base

Single requests in turn, history in, list of ten out, over all items of the data set. Weights are random, and so are the
thoughts of the memory, one for each training example: times do not depend on what a model has learnt. Writes
results/auto-time-BACKBONE.json.
"""

from __future__ import annotations

import argparse
import os
import sys

os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # before transformers is loaded

import numpy as np

from l2d import prepare
from l2d.artifacts import write_json
from l2d.backbone import probe_packing, scratch_backbone
from l2d.decode import Auto, Global, Materials, Recall, Recipe, Spread, recalled
from l2d.evidence import Evidence
from l2d.latency import in_turn
from l2d.memory import Entries, aggregate
from l2d.prompts import COMPACT, Prompts
from l2d.ranking import Decoder, Requests, Rows
from l2d.thoughts import TorchThinker
from origin import RESULTS, data_folder, origin

K = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="folder below the data folder")
    parser.add_argument("--backbone", default="scratch:base")
    parser.add_argument("--requests", type=int, default=200)
    options = parser.parse_args()
    source = data_folder() / options.name
    if not source.is_dir():
        sys.exit(f"skipped: no {options.name} in {source.parent}; set L2D_DATA to the folder that holds it")
    dataset = prepare(source)
    train, valid, catalog = dataset.splits.train, dataset.splits.valid, dataset.catalog
    backbone = scratch_backbone(options.backbone, catalog.titles)
    prompts = Prompts.compile(COMPACT, backbone.tokenizer, catalog)
    probe = probe_packing(backbone, longest=prompts.max_tokens)
    thinker = TorchThinker(backbone.settle(), probe, opening=prompts.opening)
    generator = np.random.default_rng(0)
    thoughts = generator.standard_normal((len(train), backbone.width)).astype(np.float16)
    users = train.interactions.user_ids
    entries = Entries(thoughts, train.target, train.user, train.timestamp, np.arange(len(train)), users)
    items = aggregate(entries, len(catalog))
    materials = Materials(Evidence.learn(train, len(catalog)), entries, items, Spread.of(entries, items), items.vectors)
    recipe = Recipe(half_life=60.0, newcomer=1.0)
    decoders = (Global(items), Auto(materials, recipe), Recall(recalled(materials, items.vectors), recipe))

    def think(history: Rows) -> Requests:
        return Requests([history], thinker.think([prompts.prompt(history)]))

    def answer(decoder: Decoder, history: Rows) -> object:
        return decoder.rank(think(history), K)

    calls = {"prefill": think, **{one.name: lambda history, one=one: answer(one, history) for one in decoders}}
    chosen = generator.permutation(len(valid))[: options.requests].tolist()
    times = in_turn(calls, [valid.history(index) for index in chosen])
    medians = {name: float(np.median(found)) for name, found in times.items()}
    added = {name: float(np.median(times[name] / times["prefill"])) - 1 for name in medians}
    against = float(np.median(times["auto"] / times["global"])) - 1
    parameters = sum(weights.numel() for weights in backbone.model.parameters())
    record = {
        "data": options.name, "backbone": options.backbone, "parameters": parameters, "items": len(catalog),
        "requests": options.requests, "median_ms": medians, "added_to_prefill": added, "auto_over_global": against,
        **origin(),
    }  # fmt: skip
    write_json(RESULTS / f"auto-time-{options.backbone.replace(':', '-')}.json", record)
    print(
        record["median_ms"],
        {name: f"{share:+.1%}" for name, share in added.items()},
        f"auto over global {against:+.1%}",
    )


if __name__ == "__main__":
    main()
