"""Last states at few positions: the last layer's query, MLP and norm computed there and nowhere else.

Only the last layer's keys and values are needed at every token. Its query, its output projection, its MLP and the final
norm matter at the positions that are read, one in forty of a usual prompt. In a model of four layers that is a fifth of
the prefill, in one of 28 layers three in a hundred.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, apply_rotary_pos_emb
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer

REVIEWED = (LlamaDecoderLayer, Qwen2DecoderLayer, Qwen3DecoderLayer)
"""Layers whose computation `ReadingLayer` was compared with, line by line."""

LEAST_GAIN = 0.05
"""Share of the layers' products that must fall away for the short cut to be taken."""


class ReadingLayer(nn.Module):
    """A decoder layer that hands out its states at the positions that are read.

    Args:
        layer: one of `REVIEWED`, with full attention through SDPA. Its weights are shared, not copied.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *,
        read: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        past_key_values: Any = None,
        **_: Any,
    ) -> torch.Tensor:
        """As the layer's own, and `read`: positions in `hidden_states`. Shape: (batch, reads) -> (…, reads, width)."""
        layer: Any = self.layer
        attention = layer.self_attn
        normed = layer.input_layernorm(hidden_states)
        queries = _heads(attention, "q", states_at(normed, read))
        keys, values = _heads(attention, "k", normed), _heads(attention, "v", normed)
        cos, sin = (part.expand(len(normed), -1, -1) for part in position_embeddings)
        queries, _ = apply_rotary_pos_emb(queries, queries, states_at(cos, read), states_at(sin, read))
        keys, _ = apply_rotary_pos_emb(keys, keys, cos, sin)
        if past_key_values is not None:
            keys, values = past_key_values.update(keys, values, attention.layer_idx)
        mixed, _ = ALL_ATTENTION_FUNCTIONS["sdpa"](
            attention,
            queries,
            keys,
            values,
            _seen(attention_mask, read, normed.shape[1], keys.shape[2]),
            scaling=attention.scaling,
            is_causal=False,
        )
        states = states_at(hidden_states, read) + attention.o_proj(mixed.flatten(2))
        return states + layer.mlp(layer.post_attention_layernorm(states))


def is_reviewed(base: nn.Module) -> bool:
    """Whether all layers are of a reviewed kind: their linear layers are called, and nothing else is done with them."""
    layers = getattr(base, "layers", None)
    if not isinstance(base, PreTrainedModel) or not isinstance(layers, nn.ModuleList) or not len(layers):
        return False
    return all(type(layer) in REVIEWED for layer in layers)


def can_read_short(base: nn.Module, attention: str, window: int | None) -> bool:
    """Whether `ReadingLayer` may stand in for the last layer: known to be right there, and worth it.

    Args:
        base: a model without its head.
        attention: name of its attention implementation.
        window: tokens that its sliding-window layers see.
    """
    return is_reviewed(base) and attention == "sdpa" and window is None and gain(base.layers) >= LEAST_GAIN  # type: ignore[arg-type]


def gain(layers: nn.ModuleList) -> float:
    """Share of the weights of all layers that meet only the positions that are read."""
    last: Any = layers[-1]
    kept = sum(
        weights.numel() for part in (last.self_attn.k_proj, last.self_attn.v_proj) for weights in part.parameters()
    )
    whole = sum(weights.numel() for weights in layers.parameters())
    return (sum(weights.numel() for weights in last.parameters()) - kept) / max(1, whole)


def _heads(attention: Any, name: str, states: torch.Tensor) -> torch.Tensor:
    """One projection, split into heads. (batch, n, width) -> (batch, heads, n, head width)."""
    split = getattr(attention, f"{name}_proj")(states).unflatten(-1, (-1, attention.head_dim))
    norm = getattr(attention, f"{name}_norm", None)  # Qwen3 has one for queries and keys
    return (split if norm is None else norm(split)).transpose(1, 2)


def states_at(states: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
    """(batch, n, width) at positions (batch, reads) -> (batch, reads, width)."""
    return states.gather(1, read[..., None].expand(-1, -1, states.shape[-1]))


def _seen(mask: torch.Tensor | None, read: torch.Tensor, length: int, known: int) -> torch.Tensor:
    """What the positions that are read may look at. Shape: (batch, 1, reads, known)."""
    if mask is None:  # plain causal attention behind whatever a cache holds
        place = torch.arange(known, device=read.device)
        return (place <= (known - length + read)[..., None])[:, None]
    rows = mask.expand(len(read), -1, -1, -1)
    return rows.gather(2, read[:, None, :, None].expand(-1, rows.shape[1], -1, rows.shape[3]))
