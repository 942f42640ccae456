"""Tuning steps: packs with answer weights against right-padded batches of similar length, at the same gradient.

    python benchmarks/speed/tuning.py --run runs/amazon-cds
    python benchmarks/speed/tuning.py --backbones 22m --dtype bfloat16

One step is all samples of some users under their given histories, the answers alone being learnt. Both sides read the
same samples, make batches, run forward and backward and let AdamW step; the learning rate is 0, so that gradients can
be compared at any time, and they are before the clock starts. The rival is the plain model of transformers with labels;
its tokens per batch are chosen for it beforehand. With bfloat16 both run under autocast, as the Trainer does it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

import given
import padding
import turns
from l2d.backbone import PackProbe, probe_packing
from l2d.backbone.masks import PackedBatch
from l2d.interactions import Examples
from l2d.tuning import Sample, TuningPlan, collate, tree_loss

BATCHES = (512, 1024, 2048, 4096)
"""Tokens per batch that are tried for the rival."""

SAME = {"float32": 1e-4, "bfloat16": 0.1}
"""Largest norm of the gradients' difference over that of the gradient."""

Samples = list[Sample]


class Steps:
    """One optimizer step over the same samples, in two ways.

    Args:
        one: what is tuned.
        probe: how its family is packed.
        pack_tokens: most nodes in a pack.
        autocast: whether products run in bfloat16.
    """

    def __init__(self, one: given.Given, probe: PackProbe, pack_tokens: int, *, autocast: bool) -> None:
        assert probe.form is not None
        self.backbone, self.form = one.backbone, probe.form
        self.model = one.backbone.model.train()
        self.plan = TuningPlan(one.dataset.splits.train, one.prompts, 4096, pack_tokens, 0, 0)
        self.autocast = partial(torch.autocast, "cpu", torch.bfloat16, enabled=autocast)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.0)

    def sequences(self, samples: Samples) -> tuple[list[padding.Ids], list[int]]:
        """Prompt + answer of samples, and where the answers begin."""
        heads = [self.plan.prompts.prompt(sample.history) for sample in samples]
        answers = [self.plan.prompts.answer(sample.target) for sample in samples]
        return [np.concatenate(pair) for pair in zip(heads, answers, strict=True)], [len(head) for head in heads]

    def packed(self, samples: Samples) -> float:
        """The step over packs; the mean loss of an answer's token."""
        batch = PackedBatch(**collate([self.plan.packs(samples)]))
        with self.autocast():
            loss = tree_loss(self.backbone, batch, self.form) / batch.weight.sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return self._finish(loss.item())

    def padded(self, samples: Samples, tokens: int) -> float:
        """The step over padded batches, their gradients accumulated; the same mean loss."""
        sequences, starts = self.sequences(samples)
        answers = torch.tensor(sum(map(len, sequences)) - sum(starts))
        total = 0.0
        for batch in padding.by_length(sequences, tokens):
            inputs = padding.labelled([sequences[place] for place in batch], [starts[place] for place in batch])
            with self.autocast():
                loss = self.model(**inputs, num_items_in_batch=answers, use_cache=False).loss
            loss.backward()
            total += loss.item()
        return self._finish(total)

    def gradient(self) -> torch.Tensor:
        """All gradients of the last step, as one vector."""
        return torch.cat([weights.grad.flatten() for weights in self.model.parameters() if weights.grad is not None])

    def _finish(self, loss: float) -> float:
        self.optimizer.step()
        self.last = self.gradient() if self.keep else None
        self.optimizer.zero_grad()
        return loss

    keep = False
    last: torch.Tensor | None = None

    def differences(self, samples: Samples, tokens: int) -> dict[str, float]:
        """Relative differences of loss and gradient between the two ways."""
        self.keep = True
        ours, one = self.packed(samples), self.last
        theirs, other = self.padded(samples, tokens), self.last
        self.keep, self.last = False, None
        assert one is not None and other is not None
        return {
            "loss": abs(ours - theirs) / abs(theirs),
            "gradient": float((one - other).norm() / other.norm()),
        }


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = given.arguments(__doc__)
    parser.add_argument("--steps", type=int, default=16, help="steps that are timed, evenly spaced")
    parser.add_argument("--samples", type=int, default=128, help="samples of a step, about")
    parser.add_argument("--pack-tokens", type=int, default=256, help="most nodes in a pack")
    options = given.settled(parser.parse_args(arguments))
    if options.smoke:
        options.steps, options.samples = 2, 16
    options.autocast, options.dtype = options.dtype == "bfloat16", "float32"
    rows = [measured(one, options) for one in given.every(options)]
    record = {"threads": options.threads, "rows": rows}
    turns.keep(f"tuning-{options.data}", record, options)
    return record


def measured(one: given.Given, options: argparse.Namespace) -> dict[str, Any]:
    """The row of one combination, printed."""
    probe = probe_packing(one.backbone, longest=one.prompts.max_tokens)
    steps = Steps(one, probe, options.pack_tokens, autocast=options.autocast)
    every = by_users(one.dataset.splits.train, options.samples)
    timed, whole = every[:: max(1, len(every) // options.steps)][: options.steps], sharing(steps, every)
    tokens = fitting_batch(steps, timed[0], BATCHES[:2] if options.smoke else BATCHES)
    precision = "bfloat16" if options.autocast else "float32"
    differences = steps.differences(timed[0], tokens)
    if max(differences.values()) > SAME[precision]:
        raise SystemExit(f"loss or gradient differ: {differences}: nothing to compare")
    calls = {"packed": steps.packed, "padded": lambda samples: steps.padded(samples, tokens)}
    with turns.Places(one.backbone) as count:
        found = turns.timed({name: count(name, call) for name, call in calls.items()}, timed, "packed", warmup=0)
    one.backbone.model.eval()
    sample = {**sharing(steps, timed), "places": dict(count.found)}
    sample["place_ratio"] = count.found["padded"] / count.found["packed"]
    row = {
        **one.described(), "precision": precision, "pack_tokens": options.pack_tokens, "padded_batch_tokens": tokens,
        "differences": differences, "whole": whole, "sample": sample, **found,
    }  # fmt: skip
    per_step = sample["samples"] / len(timed)
    row["samples_per_second"] = {name: 1000 * per_step / ms for name, ms in found["median_ms"].items()}
    print(
        f"{one.data:13} {one.prompts.template.name:9} {one.shape:5} tokens {whole['token_ratio']:.2f}x (all), "
        f"{sample['token_ratio']:.2f}x, places {sample['place_ratio']:.2f}x;  "
        f"time {turns.shown(found['over_packed']['padded'])}; gradient differs by {differences['gradient']:.0e}",
        flush=True,
    )
    return row


def by_users(examples: Examples, size: int) -> list[Samples]:
    """All samples, those of a user together, users in random order, in steps of at least `size`."""
    users = examples.user
    generator = np.random.default_rng(0)
    place = generator.permutation(int(users.max()) + 1)
    steps: list[Samples] = [[]]
    previous = -1
    for index in np.argsort(place[users], kind="stable").tolist():
        if users[index] != previous and len(steps[-1]) >= size:
            steps.append([])
        history, target = examples[index]
        steps[-1].append(Sample(history, target))
        previous = int(users[index])
    return steps


def sharing(steps: Steps, chosen: Sequence[Samples]) -> dict[str, Any]:
    """Tokens of samples, and nodes of their packs."""
    tokens = sum(len(sequence) for samples in chosen for sequence in steps.sequences(samples)[0])
    nodes = sum(len(tree) for samples in chosen for tree in steps.plan.packs(samples))
    return {"samples": sum(map(len, chosen)), "tokens": tokens, "nodes": nodes, "token_ratio": tokens / nodes}


def fitting_batch(steps: Steps, samples: Samples, choices: Sequence[int]) -> int:
    """Tokens per batch with which the rival is fastest."""
    calls = {str(tokens): lambda _, tokens=tokens: steps.padded(samples, tokens) for tokens in choices}
    found = turns.timed(calls, [0, 1, 2], str(choices[0]), warmup=0)["median_ms"]
    return int(min(found, key=found.__getitem__))


if __name__ == "__main__":
    main()
