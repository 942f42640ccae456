"""Single requests against decoding in language space: `generate` with ten beams, and our own beam search.

    python benchmarks/speed/requests_language.py amazon-cds --run runs/amazon-cds
    python benchmarks/speed/requests_language.py amazon-cds --run runs/amazon-cds --backbone 22m

History in, list of ten out, the same requests in turn. With `--backbone` the catalogue and the requests are those of
the run, while the model of that shape and its memory, one entry per training example, are random: times do not depend
on what was learnt, but a random model's beams wander, so its model calls may differ from a tuned one's.
Beside each ratio stand what explains it: model calls, and milliseconds of a call.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import given
import turns
from generate import Generate
from l2d import Recommender
from l2d.backbone import Backbone, probe_packing
from l2d.language import Beam
from l2d.prompts import COMPACT, Prompts
from l2d.ranking import Decoder, Requests, Rows
from l2d.thoughts import TorchThinker

K = 10
LATENT, LANGUAGE = ("global", "auto"), ("beam", "generate")


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = turns.arguments(__doc__)
    parser.add_argument("name", nargs="?", default="amazon-cds", help="of the data set, for the result file")
    parser.add_argument("--run", type=Path, help="a tuned run, calibrated")
    parser.add_argument("--backbone", choices=turns.SHAPES, help="a shape with random weights instead of the run's own")
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--threads", type=int, default=0, help="0 for all cores")
    options = parser.parse_args(arguments)
    if options.smoke:
        options.name, options.run, options.backbone, options.requests, options.threads = given.DEMO, None, "tiny", 4, 1
    elif options.run is None:
        parser.error("--run is missing")
    if options.threads:
        torch.set_num_threads(options.threads)
    record = measured(options)
    turns.keep(f"requests-{options.name}-{options.backbone or 'tuned'}", record, options)
    return record


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """The record of one backbone on one data set, printed."""
    run = None if options.smoke else Recommender.load(options.run, verify=False)
    data = run.dataset if run else given.dataset(given.DEMO)
    if run is not None and options.backbone is None:
        backbone, prompts, thinker = run.backbone, run.prompts, run.thinker
        decoders = {name: run.decoder(name) for name in (*LATENT, "beam")}
    else:
        backbone = turns.shaped(options.backbone, data.catalog.titles)
        prompts = Prompts.compile(COMPACT, backbone.tokenizer, data.catalog)
        probe = probe_packing(backbone, longest=prompts.max_tokens)
        thinker = TorchThinker(backbone.settle(), probe, opening=prompts.opening)
        decoders = given.random_decoders(data, backbone.width)
        decoders["beam"] = Beam(backbone, prompts, data.catalog, probe=thinker.probe)
    decoders["generate"] = Generate(backbone, prompts, len(data.catalog), beams=K)
    valid = data.splits.valid
    chosen = np.random.default_rng(0).permutation(len(valid))[: options.requests].tolist()
    histories = [valid.history(index) for index in chosen]

    def asked(decoder: Decoder) -> Callable[[Rows], object]:
        def call(history: Rows) -> object:
            thoughts = thinker.think([prompts.prompt(history)]) if decoder.needs_thoughts else None
            return decoder.rank(Requests([history], thoughts), K)

        return call

    calls = {"prefill": lambda history: thinker.think([prompts.prompt(history)])}
    calls |= {name: asked(decoder) for name, decoder in decoders.items()}
    found = turns.timed(calls, histories, "global")
    costs = {name: cost(backbone, calls[name], histories) for name in calls}
    rows = {
        name: {**costs[name], "median_ms": ms, "ms_per_call": ms / costs[name]["model_calls"]}
        for name, ms in found["median_ms"].items()
    }
    dtype = str(backbone.dtype).removeprefix("torch.")
    record = {
        "data": options.name, "backbone": options.backbone or "tuned", "parameters": turns.parameters(backbone),
        "dtype": dtype, "threads": torch.get_num_threads(), "items": len(data.catalog), "requests": len(histories),
        "rows": rows, "over_global": found["over_global"],
        "over_auto": turns.timed({name: calls[name] for name in ("auto", *LANGUAGE)}, histories, "auto")["over_auto"],
    }  # fmt: skip
    show(record)
    return record


def cost(backbone: Backbone, call: Callable[[Rows], object], histories: Sequence[Rows]) -> dict[str, float]:
    """Forward passes of a request, and places that they read, on average."""
    passes = 0

    def add(*_: object) -> None:
        nonlocal passes
        passes += 1

    hook = backbone.base.register_forward_hook(add)
    with turns.Places(backbone) as count:
        counted = count("", call)
        for history in histories:
            counted(history)
    hook.remove()
    return {"model_calls": passes / len(histories), "places": count.found[""] / len(histories)}


def show(record: Mapping[str, Any]) -> None:
    """Prints a record."""
    print(f"{record['data']}, {record['backbone']} backbone of {record['parameters'] / 1e6:.1f}M, {record['dtype']}")
    for name, row in record["rows"].items():
        ratios = [
            f"{turns.shown(record[over][name])} {over}" for over in ("over_global", "over_auto") if name in record[over]
        ]
        print(f"  {name:9} {row['model_calls']:5.1f} calls of {row['ms_per_call']:.2f} ms  {', '.join(ratios)}")


if __name__ == "__main__":
    main()
