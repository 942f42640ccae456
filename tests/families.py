"""Tiny random models of several families, saved to disk as any model is, with a learned tokenizer beside them."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    Lfm2Config,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen3Config,
)

from l2d.backbone import Backbone, TextTokenizer, learn_tokenizer

WINDOW = 16
TITLES = [
    f"{adjective} {noun} {number}"
    for adjective in ("red", "green", "slow", "quiet")
    for noun in ("river", "station", "guitar")
    for number in ("one", "two", "one and a half")
]

SHAPE = dict(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
    initializer_range=0.3,
)


def configuration(family: str, vocab_size: int) -> PretrainedConfig:
    shape = {**SHAPE, "vocab_size": vocab_size}
    return {
        "llama": lambda: LlamaConfig(**shape),
        "qwen3": lambda: Qwen3Config(**shape, head_dim=8),
        "gpt2": lambda: GPT2Config(
            vocab_size=vocab_size, n_embd=32, n_layer=3, n_head=4, n_positions=256, initializer_range=0.3
        ),
        "gemma2": lambda: Gemma2Config(**shape, head_dim=8, sliding_window=WINDOW, query_pre_attn_scalar=8),
        "gemma3": lambda: Gemma3TextConfig(
            **shape,
            head_dim=8,
            sliding_window=WINDOW,
            query_pre_attn_scalar=8,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        ),
        "mistral": lambda: MistralConfig(**shape, head_dim=8, sliding_window=WINDOW),
        "lfm2": lambda: Lfm2Config(**shape, layer_types=["conv", "full_attention", "conv"]),
    }[family]()


PACKED = ("llama", "qwen3", "gpt2", "gemma2", "gemma3", "mistral")
FAMILIES = (*PACKED, "lfm2")
SLIDING = ("gemma2", "gemma3", "mistral")


def tokenizer() -> TextTokenizer:
    return learn_tokenizer(TITLES, 320)


def save_family(family: str, folder: Path, seed: int = 0) -> Path:
    """Writes one tiny model and its tokenizer; returns their folder."""
    words = tokenizer()
    config = configuration(family, words.size)
    config.bos_token_id, config.eos_token_id = words.inner.bos_token_id, words.inner.eos_token_id
    config.pad_token_id = words.inner.pad_token_id
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)
    Backbone(model, words, family).save(folder)
    return folder


def open_family(family: str, folder: Path, dtype: str = "float32", seed: int = 0) -> Backbone:
    return Backbone.open(save_family(family, folder, seed), dtype=dtype, device="cpu")
