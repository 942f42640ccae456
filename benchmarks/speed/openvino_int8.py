"""The openvino engine against eager PyTorch: a prompt at a time, and many at once.

Prompts are title histories of a demo log, weights are random: times do not depend on what a model has learnt. The same
threads for all. Of the larger shapes float32 is left out, whose weights would be a third copy in memory.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from turns import arguments, keep, parameters, shaped, shown, timed

from l2d.backbone import Backbone, PackProbe, probe_packing
from l2d.prompts import Prompts, resolve_template
from l2d.recommender.quickstart import demo_dataset
from l2d.thoughts import Thinker, TorchThinker
from l2d.thoughts.openvino_engine import OpenVinoThinker, open_openvino

Tokens = NDArray[np.int32]


def prompts_of(backbone: Backbone, count: int, items: int) -> list[Tokens]:
    """Prompts of histories of a given length, drawn from the demo log."""
    dataset = demo_dataset()
    compiled = Prompts.compile(
        resolve_template("instruct", backbone.tokenizer), backbone.tokenizer, dataset.catalog,
        max_tokens=512, max_title_tokens=48,
    )  # fmt: skip
    rows = np.random.default_rng(0).integers(0, len(dataset.catalog), size=(count, items)).astype(np.int32)
    return [compiled.prompt(history) for history in rows]


def many(thinker: Thinker, prompts: Sequence[Tokens]) -> float:
    """Seconds for all prompts in one call."""
    begun = time.perf_counter()
    thinker.think(prompts)
    return time.perf_counter() - begun


def measured(shape: str, options: argparse.Namespace) -> dict[str, Any]:
    """One shape: what an export costs, a prompt at a time, and all at once."""
    titles = list(demo_dataset().catalog.titles)
    bfloat16 = shaped(shape, titles, torch.bfloat16)
    prompts = prompts_of(bfloat16, options.prompts, options.items)
    probe: PackProbe = probe_packing(bfloat16, longest=256)
    plain = TorchThinker(bfloat16, probe)
    contestants: dict[str, Thinker] = {"bfloat16": plain}
    if shape in ("tiny", "5m", "22m"):
        contestants["float32"] = TorchThinker(shaped(shape, titles), probe)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        made = open_openvino(plain, Path(folder), shape, prompts[:2], refuse=False)
        export = time.perf_counter() - begun
        begun = time.perf_counter()
        contestants["openvino"] = made = open_openvino(plain, Path(folder), shape, (), make=False, refuse=False)
        opening = time.perf_counter() - begun
        assert isinstance(made, OpenVinoThinker)
        size = sum(file.stat().st_size for file in Path(folder).rglob("graph.bin"))
        single = timed(
            {name: lambda prompt, one=thinker: one.think([prompt]) for name, thinker in contestants.items()},
            prompts[: options.single], "bfloat16",
        )  # fmt: skip
        batch = {name: [many(thinker, prompts) for _ in range(options.rounds)] for name, thinker in contestants.items()}
    over = {name: float(np.median(found) / np.median(batch["bfloat16"])) for name, found in batch.items()}
    tokens = [len(prompt) for prompt in prompts]
    return {
        "parameters": parameters(bfloat16), "tokens": float(np.mean(tokens)), "threads": torch.get_num_threads(),
        "single": single, "many_over_bfloat16": over, "export_seconds": export, "opening_seconds": opening,
        "bytes": size,
    }  # fmt: skip


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--shape", action="append", help="of turns.SHAPES; may be repeated. Default: 5m, 22m, 0.6b")
    parser.add_argument("--items", type=int, default=8, help="titles in a prompt")
    parser.add_argument("--single", type=int, default=40, help="prompts that are timed one at a time")
    parser.add_argument("--prompts", type=int, default=64, help="prompts that are thought at once")
    parser.add_argument("--rounds", type=int, default=3, help="how often they are")
    options = parser.parse_args()
    if options.smoke:
        options.shape, options.single, options.prompts, options.rounds = ["tiny"], 3, 6, 1
    record = {}
    for shape in options.shape or ("5m", "22m", "0.6b"):
        record[shape] = found = measured(shape, options)
        print(f"{shape}: {found['parameters'] / 1e6:.0f} M weights, prompts of {found['tokens']:.0f} tokens")
        for name, ratio in found["single"]["over_bfloat16"].items():
            print(f"  a prompt, {name} over bfloat16: {shown(ratio)}")
        for name, ratio in found["many_over_bfloat16"].items():
            print(f"  {options.prompts} prompts at once, {name} over bfloat16: {ratio:.2f}x")
    keep("openvino", {"shapes": record}, options)


if __name__ == "__main__":
    main()
