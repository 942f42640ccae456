"""Backbones built here and now: Qwen3-shaped, random weights, nothing to download."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from l2d.backbone.model import Backbone
from l2d.backbone.tokenizer import TextTokenizer, learn_tokenizer
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
    return _random_backbone(name, size, learn_tokenizer(titles, size.vocabulary), None, seed, device)


def drafter_backbone(backbone: Backbone, *, seed: int = 0) -> Backbone:
    """A small Qwen3-shaped causal LM with random weights and the tokenizer of a large one, to draft for it.

    Half the width (64 to 512) and a quarter of the layers: a pass costs a fraction of the large one's, and next to a
    width of 256 a narrower one would save little.

    Args:
        backbone: for which it drafts.
        seed: of the weights.
    """
    width = min(512, max(64, backbone.width // 2 // 64 * 64))
    layers = max(1, int(backbone.model.config.get_text_config().num_hidden_layers) // 4)
    vocabulary = int(backbone.model.get_input_embeddings().weight.shape[0])
    head_width = min(64, width // 2)
    size = ScratchSize(vocabulary, width, layers, 3 * width, head_width, context=backbone.context)
    return _random_backbone("drafter", size, backbone.tokenizer, vocabulary, seed, backbone.device)


def _random_backbone(
    name: str,
    size: ScratchSize,
    tokenizer: TextTokenizer,
    vocabulary: int | None,
    seed: int,
    device: torch.device | None,
) -> Backbone:
    heads = size.width // size.head_width
    config = Qwen3Config(
        vocab_size=vocabulary or tokenizer.size,
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
