"""What does a request cost beside the bare prefill of the same prompt, and what do known beginnings save?

    python benchmarks/speed/request.py amazon-cds --run runs/amazon-cds    # that run as 5m; 22m and 0.6b at random

A request goes from a history to a list of ten over all items of the data set. `bare` is one forward pass of the model's
own base class over the prompts' ids in the same precision, right-padded where there are several. `think` is our engine,
`global` and `auto` are whole requests. `returning` is auto for users whose last prompt, one item shorter, was thought
before. The 0.6b backbone computes in bfloat16 where that is faster here, the others in float32. Memories of random
shapes hold random thoughts, one for each training example: times do not depend on what a model has learnt.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import given
from l2d import Recommender
from l2d.backbone import Backbone, probe_packing, resolve_dtype
from l2d.interactions import Dataset
from l2d.prompts import Prompts
from l2d.ranking import Decoder, Requests, Rows
from l2d.thoughts import TorchThinker
from turns import arguments, keep, parameters, shaped, shown, timed

K = 10
ROOM = 1 << 32
"""Bytes for the prompts of returning users."""

Batch = Sequence[Rows]


def main(given_arguments: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__)
    parser.add_argument("name", nargs="?", default="amazon-cds", help="folder below the data folder")
    parser.add_argument("--run", type=Path, help="a calibrated run on these data, which stands for the shape 5m")
    parser.add_argument("--shapes", nargs="+", default=["5m", "22m", "0.6b"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--requests", type=int, default=96, help="prompts at each place of the table; a 0.6b gets 32")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args(given_arguments)
    torch.set_num_threads(options.threads)
    if options.smoke:
        options.name, options.shapes, options.batches, options.requests = given.DEMO, ["tiny"], [1, 4], 8
    dataset = given.dataset(options.name)
    rows = [row for shape in options.shapes for row in measured(shape, dataset, options)]
    keep(f"request-{options.name}", {"data": options.name, "items": len(dataset.catalog), "rows": rows}, options)


def measured(shape: str, dataset: Dataset, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of one backbone: each template and batch size."""
    tuned = Recommender.load(options.run) if shape == "5m" and options.run else None
    backbone = tuned.backbone if tuned else shaped(shape, dataset.catalog.titles)
    if not tuned:
        backbone.take(backbone.model.to(resolve_dtype("auto", torch.device("cpu"), backbone.width)))
    decoders = (
        [tuned.decoder("global"), tuned.decoder("auto")]
        if tuned
        else list(given.random_decoders(dataset, backbone.width).values())
    )
    probe = probe_packing(backbone)
    rows = []
    for template in ("compact", "instruct"):
        prompts = Prompts.compile(given.TEMPLATES[template], backbone.tokenizer, dataset.catalog)
        thinkers = [
            TorchThinker(backbone.settle(), probe, opening=prompts.opening, reuse_bytes=room) for room in (0, ROOM)
        ]
        for size in options.batches:
            count = min(options.requests, 32) if shape == "0.6b" else options.requests
            inputs, calls = contestants(dataset, prompts, backbone, thinkers, decoders, size, count)
            figures = timed(calls, inputs, "bare", warmup=0)
            tokens = np.mean([len(prompts.prompt(history)) for batch in inputs for history in batch])
            rows.append(
                {
                    "shape": shape, "tuned": bool(tuned), "parameters": parameters(backbone),
                    "dtype": str(backbone.dtype).removeprefix("torch."), "template": template, "batch": size,
                    "tokens": float(tokens), "opening": len(prompts.opening),
                    "short": backbone.reader.short, **figures,
                }
            )  # fmt: skip
            ratios = "  ".join(f"{name} {shown(ratio)}" for name, ratio in figures["over_bare"].items())
            print(f"{shape} {template}, batch {size}: over bare  {ratios}", flush=True)
    return rows


def contestants(
    dataset: Dataset,
    prompts: Prompts,
    backbone: Backbone,
    thinkers: Sequence[TorchThinker],
    decoders: Sequence[Decoder],
    size: int,
    count: int,
) -> tuple[list[Batch], dict[str, Callable[[Batch], object]]]:
    """Batches of validation histories, and what is done with each; everything is warm when they are handed out."""
    thinker, remembering = thinkers
    valid = dataset.splits.valid
    drawn = np.random.default_rng(0).permutation(np.flatnonzero(valid.history_length > 1))[: count + 3 * size]
    histories = [valid.history(index) for index in drawn.tolist()]
    *inputs, last = [histories[start : start + size] for start in range(0, len(histories) - size + 1, size)]

    def bare(batch: Batch) -> object:
        ids = [torch.from_numpy(prompts.prompt(history).astype(np.int64)) for history in batch]
        table = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
        lengths = torch.tensor([len(prompt) for prompt in ids])
        mask = (torch.arange(table.shape[1]) < lengths[:, None]).long() if len(batch) > 1 else None
        with torch.inference_mode():
            return backbone.base(input_ids=table, attention_mask=mask, use_cache=False).last_hidden_state

    def request(engine: TorchThinker, decoder: Decoder) -> Callable[[Batch], object]:
        def answer(batch: Batch) -> object:
            thoughts = engine.think([prompts.prompt(history) for history in batch])
            return decoder.rank(Requests(batch, thoughts), K)

        return answer

    calls: dict[str, Callable[[Batch], object]] = {"bare": bare}
    calls["think"] = lambda batch: thinker.think([prompts.prompt(history) for history in batch])
    calls |= {decoder.name: request(thinker, decoder) for decoder in decoders}
    if size == 1:
        for batch in inputs:
            remembering.think([prompts.prompt(history[:-1]) for history in batch])
        calls["returning"] = request(remembering, decoders[-1])
    for call in calls.values():
        call(last)
    return inputs, calls


if __name__ == "__main__":
    main()
