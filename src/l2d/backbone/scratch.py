"""Backbones built here and now: Qwen3-shaped, random weights, nothing to download."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from l2d.backbone.model import Backbone
from l2d.backbone.tokenizer import learn_tokenizer
from l2d.errors import ConfigError


@dataclass(frozen=True)
class ScratchSize:
    """Shape of a scratch backbone.

    Args:
        vocabulary: most BPE ids.
        width: hidden size.
        layers: decoder layers.
        intermediate: width inside the MLP.
        head_width: width of an attention head.
        context: most positions.
    """

    vocabulary: int
    width: int
    layers: int
    intermediate: int
    head_width: int = 64
    context: int = 2048


SCRATCH_SIZES = {
    "scratch:tiny": ScratchSize(vocabulary=2000, width=128, layers=2, intermediate=384, head_width=32),
    "scratch:small": ScratchSize(vocabulary=6000, width=256, layers=4, intermediate=768),
    "scratch:base": ScratchSize(vocabulary=8000, width=512, layers=6, intermediate=1536),
}
"""About 0.6, 5 and 25 million parameters."""


def scratch_backbone(
    name: str, titles: Sequence[str], *, seed: int = 0, device: torch.device | None = None
) -> Backbone:
    """A Qwen3-shaped causal LM with random weights and a BPE learned on the titles.

    Args:
        name: a key of `SCRATCH_SIZES`.
        titles: texts known before the training cut, in a fixed order.
        seed: of the weights.
        device: where to put it; None for the CPU.

    Raises:
        ConfigError: no such size.
    """
    size = SCRATCH_SIZES.get(name)
    if size is None:
        raise ConfigError("unknown scratch backbone", got=name, expected=", ".join(SCRATCH_SIZES))
    tokenizer = learn_tokenizer(titles, size.vocabulary)
    heads = size.width // size.head_width
    config = Qwen3Config(
        vocab_size=tokenizer.size,
        hidden_size=size.width,
        num_hidden_layers=size.layers,
        intermediate_size=size.intermediate,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=size.head_width,
        max_position_embeddings=size.context,
        # Dropout inside attention turns SDPA's fused kernel off: a tuning step then takes a quarter longer on a CPU.
        attention_dropout=0.0,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.inner.bos_token_id,
        eos_token_id=tokenizer.inner.eos_token_id,
        pad_token_id=tokenizer.inner.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config)
    return Backbone(model.eval().to(device or torch.device("cpu")), tokenizer, name)
