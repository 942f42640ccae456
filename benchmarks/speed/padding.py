"""The rival of packs: right-padded batches of prompts of similar length, as people run and tune a model today.

The model's own causal mask and its own loss; nothing is shared between prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

Ids = NDArray[np.int32]
IGNORED = -100


def by_length(sequences: Sequence[Ids], tokens: int) -> Iterator[list[int]]:
    """Places of sequences in batches of at most `tokens` padded tokens, the longest sequences first."""
    order = sorted(range(len(sequences)), key=lambda place: -len(sequences[place]))
    while order:
        size = max(1, tokens // len(sequences[order[0]]))
        yield order[:size]
        order = order[size:]


def padded(sequences: Sequence[Ids]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids padded with zeros on the right, and 1 for tokens. Shape of both: (sequences, longest)."""
    ids = [torch.from_numpy(sequence.astype(np.int64)) for sequence in sequences]
    mask = [torch.ones_like(one) for one in ids]
    pad = nn.utils.rnn.pad_sequence
    return pad(ids, batch_first=True), pad(mask, batch_first=True)


@torch.inference_mode()
def think(states_at: Callable[..., torch.Tensor], prompts: Sequence[Ids], tokens: int) -> NDArray[np.float32]:
    """State of a model at the last token of each prompt. Shape: (prompts, width).

    `states_at` is that of the backbone, so that what is compared with packs differs from them by padding alone.
    """
    found: list[torch.Tensor] = [torch.empty(0)] * len(prompts)
    for batch in by_length(prompts, tokens):
        ids, mask = padded([prompts[place] for place in batch])
        read = mask.sum(dim=1, keepdim=True) - 1
        last = states_at(ids, read, attention_mask=mask, use_cache=False)[:, 0].float()
        for place, state in zip(batch, last, strict=True):
            found[place] = state
    return torch.stack(found).numpy()


def labelled(sequences: Sequence[Ids], starts: Sequence[int]) -> dict[str, torch.Tensor]:
    """A batch with the answers alone as labels."""
    ids, mask = padded(sequences)
    place = torch.arange(ids.shape[1])
    answer = (mask == 1) & (place >= torch.tensor(starts)[:, None])
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(~answer, IGNORED)}
