"""How much of a machine's matrix rate the prefill reaches, and what the rest of its time is.

    python benchmarks/speed/matrix.py
    python benchmarks/speed/matrix.py --backbones 22m,0.6b --dtype bfloat16

Prompts of one length, so nothing is padded, are read in batches of several sizes by the base model. Each is timed in
turn with one large square product of the same type. Floating-point operations are counted from shapes: two per weight
of a linear layer and token, and four per attention head, its width and pair of tokens that may see each other. Norms,
rotations and activations count as nothing, and so show as lost rate; the profiler names them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

import given
import turns
from l2d.backbone import Backbone

PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::_addmm_activation")
ATTENTION = "scaled_dot_product"


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = given.arguments(__doc__)
    parser.set_defaults(data="amazon-cds", templates=["instruct"], backbones=["22m", "0.6b"])
    parser.add_argument(
        "--length", type=int, default=106, help="tokens of a prompt; 106 is the mean of instruct on CDs"
    )
    parser.add_argument("--batches", default="1,2,4,8,16,32", help="prompts in a batch")
    parser.add_argument("--most", type=float, default=2e12, help="operations that a batch may take")
    parser.add_argument("--square", type=int, default=2048, help="rows of the large product")
    parser.add_argument("--rounds", type=int, default=5)
    options = given.settled(parser.parse_args(arguments))
    if options.smoke:
        options.length, options.batches, options.square, options.rounds = 12, "1,2", 64, 2
    rows = [measured(one, options) for one in given.every(options)]
    record = {"threads": options.threads, "length": options.length, "square": options.square, "rows": rows}
    turns.keep(f"matrix-{options.dtype}", record, options)
    return record


def measured(one: given.Given, options: argparse.Namespace) -> dict[str, Any]:
    """The row of one backbone, printed."""
    square = torch.ones(options.square, options.square, dtype=one.backbone.dtype)
    sizes = [int(size) for size in options.batches.split(",")]
    sizes = [n for n in sizes if n == sizes[0] or operations(one.backbone, n, options.length) <= options.most]
    sweep = [rate(one.backbone, square, size, options) for size in sizes]
    best = max(sweep, key=lambda found: float(found["share"]))
    row = {**one.described(), "best": best, "sweep": sweep, "profile": profiled(one.backbone, best["batch"], options)}
    print(
        f"{one.shape:5} {row['dtype']:8} {best['share']:.0%} of the product's {best['product_gflops']:.0f} GFLOP/s "
        f"at batch {best['batch']}, {sweep[0]['share']:.0%} at {sizes[0]}; time in products, attention, the rest: "
        + ", ".join(f"{row['profile'][part]:.0%}" for part in ("products", "attention", "rest")),
        flush=True,
    )
    return row


def operations(backbone: Backbone, batch: int, length: int) -> float:
    """Floating-point operations of reading a batch of prompts with the base model."""
    weights = sum(layer.weight.numel() for layer in backbone.base.modules() if isinstance(layer, nn.Linear))
    config = backbone.model.config.get_text_config()
    width = config.num_attention_heads * config.head_dim
    pairs = length * (length + 1) / 2
    return batch * (2.0 * weights * length + 4.0 * config.num_hidden_layers * width * pairs)


def prompts(backbone: Backbone, batch: int, length: int) -> torch.Tensor:
    """Random ids. Shape: (batch, length)."""
    vocabulary = backbone.model.get_input_embeddings().weight.shape[0]
    return torch.randint(0, vocabulary, (batch, length), generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def rate(backbone: Backbone, square: torch.Tensor, batch: int, options: argparse.Namespace) -> dict[str, Any]:
    """Rates of a batch's prefill and of the large product, taken in turn, and the one's share of the other."""
    ids = prompts(backbone, batch, options.length)
    calls = {"prefill": lambda _: backbone.last_states(ids), "product": lambda _: square @ square}
    found = turns.timed(calls, range(options.rounds), "prefill", warmup=1)
    work = {"prefill": operations(backbone, batch, options.length), "product": 2.0 * len(square) ** 3}
    gflops = {f"{name}_gflops": work[name] / found["median_ms"][name] / 1e6 for name in work}
    share = work["prefill"] / work["product"] * found["over_prefill"]["product"]["median"]
    return {"batch": batch, "operations": work, **found, **gflops, "share": share}


@torch.inference_mode()
def profiled(backbone: Backbone, batch: int, options: argparse.Namespace) -> dict[str, Any]:
    """Shares of the processor's time, and the largest of those that are neither product nor attention."""
    ids = prompts(backbone, batch, options.length)
    backbone.last_states(ids)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        backbone.last_states(ids)
    times = {event.key: float(event.self_cpu_time_total) for event in seen.key_averages()}
    total = sum(times.values())
    products = sum(times.get(name, 0.0) for name in PRODUCTS)
    attention = sum(time for name, time in times.items() if ATTENTION in name)
    others = {name: time for name, time in times.items() if name not in PRODUCTS and ATTENTION not in name}
    largest = sorted(others, key=others.__getitem__, reverse=True)[:8]
    shares = np.array([products, attention, total - products - attention]) / total
    return {
        **dict(zip(("products", "attention", "rest"), shares.tolist(), strict=True)),
        "largest_of_the_rest": {name: others[name] / total for name in largest},
    }


if __name__ == "__main__":
    main()
