"""The torch engine: packs where the backbone's probe allows them, length-sorted right-padded batches elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from l2d.backbone import Backbone, MaskForm, PackProbe, packed_batch, probe_packing
from l2d.packing import Pack, pack

CPU_PACK_TOKENS, GPU_PACK_TOKENS = 512, 4096
"""Nodes of a pack. A dense mask costs the square of it, so a CPU wants short packs."""

CPU_BATCH_TOKENS, GPU_BATCH_TOKENS = 2048, 16384
"""Tokens of a forward pass."""


class TorchThinker:
    """Thinks with a backbone in eager PyTorch: base model only, no logits, no cache.

    Args:
        backbone: the tuned backbone.
        probe: what the opening probe found; None probes now.
        pack_tokens: nodes of a pack; None chooses by device.
        batch_tokens: tokens of a forward pass; None chooses by device.
    """

    def __init__(
        self,
        backbone: Backbone,
        probe: PackProbe | None = None,
        *,
        pack_tokens: int | None = None,
        batch_tokens: int | None = None,
    ) -> None:
        on_cpu = backbone.device.type == "cpu"
        self.backbone = backbone
        self.probe = probe or probe_packing(backbone, longest=min(1024, backbone.context))
        self.pack_tokens = pack_tokens or (CPU_PACK_TOKENS if on_cpu else GPU_PACK_TOKENS)
        self.batch_tokens = batch_tokens or (CPU_BATCH_TOKENS if on_cpu else GPU_BATCH_TOKENS)

    @property
    def width(self) -> int:
        """Hidden size of the backbone."""
        return self.backbone.width

    @torch.inference_mode()
    def think(
        self, prompts: Sequence[NDArray[np.int32]], progress: Callable[[int, int], None] | None = None
    ) -> NDArray[np.float32]:
        """Thoughts of prompts, in their order. Shape: (prompts, width)."""
        if len(prompts) == 1:
            ids = self._tensor(prompts[0])[None]
            return self.backbone.last_states(ids)[0, -1:].float().cpu().numpy()
        if self.probe.form is None:
            return self._think_padded(prompts, progress)
        return self._think_packed(prompts, self.probe.form, progress)

    def _tensor(self, values: NDArray[np.integer]) -> torch.Tensor:
        return torch.from_numpy(values.astype(np.int64)).to(self.backbone.device)

    def _think_packed(
        self, prompts: Sequence[NDArray[np.int32]], form: MaskForm, progress: Callable[[int, int], None] | None
    ) -> NDArray[np.float32]:
        thoughts = np.empty((len(prompts), self.width), dtype=np.float32)
        done = 0
        for group in _grouped(pack(prompts, self.pack_tokens), self.batch_tokens):
            states = self.backbone.packed_states(packed_batch(group).to(self.backbone.device), form)
            for line, tree in enumerate(group):
                thoughts[tree.sequences] = states[line, self._tensor(tree.read)].float().cpu().numpy()
                done += len(tree.sequences)
            if progress is not None:
                progress(done, len(prompts))
        return thoughts

    def _think_padded(
        self, prompts: Sequence[NDArray[np.int32]], progress: Callable[[int, int], None] | None
    ) -> NDArray[np.float32]:
        thoughts = np.empty((len(prompts), self.width), dtype=np.float32)
        lengths = np.array([len(prompt) for prompt in prompts], dtype=np.int64)
        order, done = np.argsort(-lengths, kind="stable"), 0
        while done < len(order):
            longest = int(lengths[order[done]])
            batch = order[done : done + max(1, self.batch_tokens // max(1, longest))]
            ids = np.zeros((len(batch), longest), dtype=np.int64)
            for line, index in enumerate(batch):
                ids[line, : lengths[index]] = prompts[index]
            mask = self._tensor((np.arange(longest) < lengths[batch][:, None]).astype(np.int64))
            # Right padding: a causal model's state at the last real token has not seen what stands behind it.
            states = self.backbone.last_states(self._tensor(ids), mask)
            last = states[torch.arange(len(batch), device=states.device), self._tensor(lengths[batch] - 1)]
            thoughts[batch] = last.float().cpu().numpy()
            done += len(batch)
            if progress is not None:
                progress(done, len(order))
        return thoughts


def _grouped(packs: list[Pack], batch_tokens: int) -> list[list[Pack]]:
    """Packs of similar length, as many as fit in a forward pass."""
    groups: list[list[Pack]] = []
    for tree in packs:
        longest = max(len(tree), len(groups[-1][0])) if groups else len(tree)
        if groups and longest * (len(groups[-1]) + 1) <= batch_tokens:
            groups[-1].append(tree)
        else:
            groups.append([tree])
    return groups
