"""The openvino engine against eager PyTorch: a prompt at a time, and many at once.

Prompts are random tokens and weights are random: times do not depend on what a model has learnt. Forty tokens are the
mean of CDs in the compact template. The same threads for all. Of 0.6b float32 is left out: its weights would be a third
copy in memory. (Not named openvino.py: a script of that name would hide the package.)
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from l2d.backbone import Backbone, PackProbe, probe_packing
from l2d.recommender.quickstart import demo_dataset
from l2d.thoughts import Thinker, TorchThinker
from l2d.thoughts.openvino_engine import OpenVinoThinker, open_openvino
from turns import arguments, keep, parameters, shaped, shown, timed

Tokens = NDArray[np.int32]


def prompts_of(backbone: Backbone, count: int, tokens: int) -> list[Tokens]:
    """Prompts of random tokens."""
    vocabulary = backbone.model.get_input_embeddings().weight.shape[0]
    return list(np.random.default_rng(0).integers(0, vocabulary, size=(count, tokens)).astype(np.int32))


def measured(shape: str, options: argparse.Namespace) -> dict[str, Any]:
    """One shape: what an export costs; for each length a prompt at a time, and many at once."""
    titles = list(demo_dataset().catalog.titles)
    bfloat16 = shaped(shape, titles, torch.bfloat16)
    probe: PackProbe = probe_packing(bfloat16, longest=256)
    plain = TorchThinker(bfloat16.settle(), probe)
    contestants: dict[str, Thinker] = {"bfloat16": plain}
    if shape != "0.6b":
        contestants["float32"] = TorchThinker(shaped(shape, titles).settle(), probe)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        made = open_openvino(plain, Path(folder), shape, prompts_of(bfloat16, 2, 40), refuse=False)
        export = time.perf_counter() - begun
        begun = time.perf_counter()
        made = open_openvino(plain, Path(folder), shape, (), make=False, refuse=False)
        opening = time.perf_counter() - begun
        size = sum(file.stat().st_size for file in Path(folder).rglob("graph.bin"))
        assert isinstance(made, OpenVinoThinker)
        contestants["openvino"] = made
        by_length = {str(tokens): at_length(contestants, bfloat16, tokens, options) for tokens in options.tokens}
    return {
        "parameters": parameters(bfloat16), "threads": torch.get_num_threads(), "tokens": by_length,
        "export_seconds": export, "opening_seconds": opening, "bytes": size,
    }  # fmt: skip


def at_length(
    contestants: dict[str, Thinker], backbone: Backbone, tokens: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Prompts of one length, in turn by each contestant."""
    single = timed(
        {name: lambda prompt, one=thinker: one.think([prompt]) for name, thinker in contestants.items()},
        prompts_of(backbone, options.single, tokens), "bfloat16",
    )  # fmt: skip
    prompts = prompts_of(backbone, options.prompts, tokens)
    together = timed(
        {name: lambda _, one=thinker: one.think(prompts) for name, thinker in contestants.items()},
        range(options.rounds), "bfloat16", warmup=1,
    )  # fmt: skip
    over = {name: found["median"] for name, found in together["over_bfloat16"].items()}
    return {"single": single, "many": len(prompts), "many_over_bfloat16": {"bfloat16": 1.0, **over}}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--shape", action="append", help="of turns.SHAPES; may be repeated. Default: 5m, 22m, 0.6b")
    parser.add_argument("--tokens", action="append", type=int, help="length of a prompt. Default: 40, 80, 160")
    parser.add_argument("--single", type=int, default=30, help="prompts that are timed one at a time")
    parser.add_argument("--prompts", type=int, default=32, help="prompts that are thought at once")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3, help="how often they are")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.tokens = options.tokens or [40, 80, 160]
    if options.smoke:
        options.shape, options.tokens, options.single, options.prompts, options.rounds = ["tiny"], [12], 3, 6, 1
    record = {}
    for shape in options.shape or ("5m", "22m", "0.6b"):
        record[shape] = found = measured(shape, options)
        print(f"{shape}: {found['parameters'] / 1e6:.0f} M weights")
        for tokens, row in found["tokens"].items():
            for name, ratio in row["single"]["over_bfloat16"].items():
                print(f"  a prompt of {tokens} tokens, {name} over bfloat16: {shown(ratio)}")
            ratio = row["many_over_bfloat16"]["openvino"]
            print(f"  {row['many']} prompts of {tokens} tokens at once, openvino over bfloat16: {ratio:.2f}x")
    keep("openvino", {"shapes": record}, options)


if __name__ == "__main__":
    main()
