"""What the speed tables share: backbones of given shapes, contestants timed in turn, ratios with their quartiles.

A time is the machine's; a ratio of two times that were taken in turn is the program's. So every script here prints
ratios, keeps the medians beside them, and writes results/speed-NAME.json. `--smoke` runs the same code on the smallest
sizes, writes nothing, and is what the tests run.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # before transformers is loaded
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import Qwen3Config, Qwen3ForCausalLM

from l2d.artifacts import write_json
from l2d.backbone import Backbone, scratch_backbone
from l2d.latency import in_turn
from origin import RESULTS, data_folder, origin

Input = TypeVar("Input")

SHAPES = ("tiny", "5m", "22m", "0.6b")
"""Sizes by name: scratch:tiny, scratch:small, scratch:base, and a Qwen3-0.6B with random weights."""

SCRATCH = {"tiny": "scratch:tiny", "5m": "scratch:small", "22m": "scratch:base"}


def arguments(documentation: str | None, **defaults: Any) -> argparse.ArgumentParser:
    """A parser with the options that all tables have."""
    parser = argparse.ArgumentParser(description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="smallest sizes, nothing written")
    parser.add_argument("--json", type=Path, help="result file; default benchmarks/results/speed-NAME.json")
    parser.set_defaults(**defaults)
    return parser


def source(name: str) -> Path:
    """A data set's folder.

    Raises:
        SystemExit: it is not there; says so.
    """
    folder = data_folder() / name
    if not folder.is_dir():
        sys.exit(f"skipped: no {name} in {folder.parent}; set L2D_DATA to the folder that holds it")
    return folder


def shaped(shape: str, titles: Sequence[str], dtype: torch.dtype = torch.float32, *, device: str = "cpu") -> Backbone:
    """A backbone of a shape with random weights: times do not depend on what a model has learnt.

    Args:
        shape: one of `SHAPES`.
        titles: what its tokenizer is learned on.
        dtype: of its weights.
        device: where it computes.
    """
    small = scratch_backbone(SCRATCH.get(shape, "scratch:base"), titles)
    if shape == "0.6b":
        small.take(_qwen3())
    return _placed(small, dtype, device)


def _qwen3() -> Qwen3ForCausalLM:
    """Qwen3-0.6B as its configuration on the hub describes it."""
    config = Qwen3Config(
        vocab_size=151_936, hidden_size=1024, num_hidden_layers=28, intermediate_size=3072, num_attention_heads=16,
        num_key_value_heads=8, head_dim=128, max_position_embeddings=40_960, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device("meta"):
        model = Qwen3ForCausalLM(config)
    model = model.to_empty(device="cpu")
    for weights in model.parameters():
        torch.nn.init.normal_(weights, std=0.02) if weights.ndim > 1 else torch.nn.init.ones_(weights)
    model.model.rotary_emb = type(model.model.rotary_emb)(config)  # its buffers are no parameters
    model.tie_weights()
    return model


def _placed(backbone: Backbone, dtype: torch.dtype, device: str) -> Backbone:
    backbone.take(backbone.model.to(device=device, dtype=dtype))
    return backbone


def parameters(backbone: Backbone) -> int:
    """Weights of the model, tied ones counted once."""
    return sum(weights.numel() for weights in backbone.model.parameters())


def timed(
    calls: Mapping[str, Callable[[Input], object]], inputs: Sequence[Input], against: str, *, warmup: int = 3
) -> dict[str, Any]:
    """Times contestants in turn on the same inputs.

    Returns:
        `median_ms` of each and, over the inputs, median and quartiles of each one's time over that of `against`.
    """
    times = in_turn(calls, inputs, warmup=warmup)
    return {
        "inputs": len(inputs),
        "median_ms": {name: float(np.median(found)) for name, found in times.items()},
        f"over_{against}": {name: spread(found / times[against]) for name, found in times.items() if name != against},
    }


class Places:
    """Counts the places that contestants send through a backbone, padding included.

    with Places(backbone) as count:
        timed({name: count(name, call) ...}, ...)
    count.found  # places by name
    """

    def __init__(self, backbone: Backbone) -> None:
        self.found: dict[str, int] = {}
        self.counting: str | None = None
        self.embeddings = backbone.model.get_input_embeddings()

    def __enter__(self) -> Places:
        self.hook = self.embeddings.register_forward_hook(self._add)
        return self

    def __exit__(self, *_: object) -> None:
        self.hook.remove()

    def __call__(self, name: str, call: Callable[[Input], object]) -> Callable[[Input], object]:
        """The same call, its places counted under a name."""
        self.found[name] = 0

        def counted(given: Input) -> object:
            self.counting = name
            return call(given)

        return counted

    def _add(self, _: object, inputs: tuple[torch.Tensor, ...], __: object) -> None:
        if self.counting is not None:
            self.found[self.counting] += inputs[0].numel()


def spread(ratios: NDArray[np.float64]) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75]).tolist()
    return {"median": middle, "low": low, "high": high}


def shown(ratio: Mapping[str, float]) -> str:
    """A ratio for people."""
    return f"{ratio['median']:.2f}x ({ratio['low']:.2f} to {ratio['high']:.2f})"


def keep(name: str, record: Mapping[str, Any], options: argparse.Namespace) -> None:
    """Writes a result with its origin; a smoke run writes only where it was told to."""
    path = options.json or (None if options.smoke else RESULTS / f"speed-{name}.json")
    if path is not None:
        write_json(path, {**record, **origin()})
