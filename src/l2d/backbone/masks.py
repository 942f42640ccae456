"""Packs as model input: tensors, and the attention mask in the form that a model family takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from l2d.packing import Pack


class MaskForm(StrEnum):
    """How a family takes the mask of a pack.

    FULL: one mask of ancestors. MAPPING: {full_attention, sliding_attention} (Gemma 3, Cohere 2).
    WINDOWED: one mask, for ancestors within the window (Mistral).
    """

    FULL = "full"
    MAPPING = "mapping"
    WINDOWED = "windowed"


@dataclass(frozen=True)
class PackedBatch:
    """Several packs padded to one length. Every tensor has shape (packs, length).

    Args:
        ids: token ids, 0 behind a pack's end.
        depth: position ids.
        end: position after each node's subtree; a padding node is its own whole subtree.
        parent: position of the parent, -1 for none.
        weight: answer weight of each node, 0 for padding.
    """

    ids: torch.Tensor
    depth: torch.Tensor
    end: torch.Tensor
    parent: torch.Tensor
    weight: torch.Tensor

    def to(self, device: torch.device) -> PackedBatch:
        """The batch on another device."""
        return PackedBatch(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


def packed_batch(packs: Sequence[Pack]) -> PackedBatch:
    """Pads packs to the longest and stacks them."""
    length = max(len(pack) for pack in packs)
    own_end = np.arange(1, length + 1, dtype=np.int64)

    def stack(name: str, padding: NDArray[np.int64] | int) -> torch.Tensor:
        table = np.broadcast_to(padding, (len(packs), length)).astype(np.int64)
        for line, pack in enumerate(packs):
            table[line, : len(pack)] = getattr(pack, name)
        return torch.from_numpy(table)

    return PackedBatch(
        stack("ids", 0), stack("depth", 0), stack("end", own_end), stack("parent", -1), stack("weight", 0)
    )


def ancestor_mask(end: torch.Tensor) -> torch.Tensor:
    """True where query q may look at key kv: `kv <= q < end[kv]`. Shape: (packs, 1, q, kv)."""
    place = torch.arange(end.shape[-1], device=end.device)
    seen = place[None, None, :] <= place[None, :, None]
    return (seen & (place[None, :, None] < end[:, None, :]))[:, None]


def windowed(mask: torch.Tensor, depth: torch.Tensor, window: int) -> torch.Tensor:
    """The mask restricted to the nearest `window` ancestors, counted by depth and not by place in the pack."""
    return mask & (depth[:, None, :, None] - depth[:, None, None, :] < window)


def attention_masks(
    batch_end: torch.Tensor,
    depth: torch.Tensor,
    form: MaskForm,
    window: int | None,
    additive: torch.dtype | None,
    before: int = 0,
) -> torch.Tensor | dict[str, torch.Tensor]:
    """The mask or masks to hand to a model's forward.

    Args:
        batch_end: `PackedBatch.end`. Shape: (packs, length).
        depth: `PackedBatch.depth`. Shape: (packs, length).
        form: how the family takes it.
        window: tokens that a sliding layer sees, or None.
        additive: None for a boolean mask; a float type for eager attention, which adds what it gets (0 / -inf).
        before: tokens in front of every pack, which all its nodes see; not with a window.
    """
    full = nn.functional.pad(ancestor_mask(batch_end), (before, 0), value=True)
    narrow = windowed(full, depth, window) if window is not None and form is not MaskForm.FULL else full
    if additive is not None:
        full, narrow = (
            torch.zeros_like(mask, dtype=additive).masked_fill(~mask, -torch.inf) for mask in (full, narrow)
        )
    if form is MaskForm.MAPPING:
        return {"full_attention": full, "sliding_attention": narrow}
    return narrow if form is MaskForm.WINDOWED else full
