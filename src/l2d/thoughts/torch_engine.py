"""The torch engine: packs where the backbone's probe allows them, length-sorted right-padded batches elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from l2d.backbone import Backbone, Layers, MaskForm, PackProbe, packed_batch, probe_packing
from l2d.packing import Pack, pack
from l2d.thoughts.reuse import PrefixCache

CPU_PACK_TOKENS, GPU_PACK_TOKENS = 192, 4096
"""Nodes of a pack. A dense mask costs the square of it, so a CPU wants short packs."""

CPU_BATCH_TOKENS, GPU_BATCH_TOKENS = 2048, 16384
"""Tokens of a forward pass."""

LEAST_SHARED = 8
"""Tokens that must be known for a reuse to pay: copying their keys and values costs a few microseconds a layer."""


class TorchThinker:
    """Thinks with a backbone in eager PyTorch: base model only, no logits, the last layer only where it is read.

    The template's opening is read once, and prompts start from its keys and values. With `reuse_bytes` a single prompt
    starts from those of an earlier one that begins like it; its thought is then equal up to rounding, not bit by bit.

    Args:
        backbone: the tuned backbone.
        probe: what the opening probe found; None probes now.
        opening: tokens that every prompt begins with; None for none.
        reuse_bytes: most memory for keys and values of former single prompts; with 0 none are kept.
        pack_tokens: nodes of a pack; None chooses by device.
        batch_tokens: tokens of a forward pass; None chooses by device.
    """

    def __init__(
        self,
        backbone: Backbone,
        probe: PackProbe | None = None,
        *,
        opening: NDArray[np.int32] | None = None,
        reuse_bytes: int = 0,
        pack_tokens: int | None = None,
        batch_tokens: int | None = None,
    ) -> None:
        on_cpu = backbone.device.type == "cpu"
        self.backbone = backbone
        self.probe = probe or probe_packing(backbone, longest=min(1024, backbone.context))
        self.pack_tokens = pack_tokens or (CPU_PACK_TOKENS if on_cpu else GPU_PACK_TOKENS)
        self.batch_tokens = batch_tokens or (CPU_BATCH_TOKENS if on_cpu else GPU_BATCH_TOKENS)
        reusing = self.probe.form is not None and backbone.window is None  # a window's cache or a state cannot be cut
        self._opening = opening if reusing and opening is not None and len(opening) >= LEAST_SHARED else None
        self._opening_layers: Layers = ()
        self._reader: object = None
        self._former = PrefixCache(reuse_bytes if reusing else 0)

    @property
    def width(self) -> int:
        """Hidden size of the backbone."""
        return self.backbone.width

    @torch.inference_mode()
    def think(
        self, prompts: Sequence[NDArray[np.int32]], progress: Callable[[int, int], None] | None = None
    ) -> NDArray[np.float32]:
        """Thoughts of prompts, in their order. Shape: (prompts, width)."""
        if self._reader is not self.backbone.reader:  # other weights: what is known is not theirs
            self._reader, self._opening_layers = self.backbone.reader, ()
            self._former.clear()
        if len(prompts) == 1:
            return self._think_one(prompts[0])
        if self.probe.form is None:
            return self._think_padded(prompts, progress)
        return self._think_packed(prompts, self.probe.form, progress)

    def _tensor(self, values: NDArray[np.integer]) -> torch.Tensor:
        return torch.from_numpy(values.astype(np.int64)).to(self.backbone.device)

    def _think_one(self, prompt: NDArray[np.int32]) -> NDArray[np.float32]:
        """Shape: (1, width)."""
        shared, layers = self._known_opening([prompt])
        former, its_layers = self._former.longest(prompt[:-1])
        if former > max(shared, LEAST_SHARED - 1):
            shared, layers = former, its_layers
        return self._run(prompt, shared, layers)

    def _known_opening(self, prompts: Sequence[NDArray[np.int32]]) -> tuple[int, Layers]:
        """Tokens of the opening that all prompts have in front of one more, and their keys and values."""
        opening = self._opening
        if opening is None or not all(np.array_equal(prompt[: len(opening)], opening) for prompt in prompts):
            return 0, ()
        if not self._opening_layers:
            cache = self.backbone.cache()
            read = torch.zeros((1, 1), dtype=torch.int64, device=self.backbone.device)
            ids = self._tensor(opening)[None]
            self.backbone.states_at(ids, read, past_key_values=cache, use_cache=True)
            # Its last token is left out: a prompt that is the opening alone still has a token to be read at.
            self._opening_layers = [(layer.keys[:, :, :-1], layer.values[:, :, :-1]) for layer in cache.layers]
        return len(opening) - 1, self._opening_layers

    def _run(self, prompt: NDArray[np.int32], shared: int, layers: Layers) -> NDArray[np.float32]:
        """Thinks what stands behind the first `shared` tokens; keeps keys and values where there is room for any."""
        ids = self._tensor(prompt[shared:])[None]
        read = torch.full((1, 1), ids.shape[1] - 1, device=ids.device)
        if not shared and not self._former.most_bytes:
            return self.backbone.states_at(ids, read, use_cache=False)[0].float().cpu().numpy()
        cache = self.backbone.cache(layers)
        states = self.backbone.states_at(ids, read, past_key_values=cache, use_cache=True)
        if self._former.most_bytes:
            self._former.add(prompt, [(layer.keys, layer.values) for layer in cache.layers])
        return states[0].float().cpu().numpy()

    def _think_packed(
        self, prompts: Sequence[NDArray[np.int32]], form: MaskForm, progress: Callable[[int, int], None] | None
    ) -> NDArray[np.float32]:
        thoughts = np.empty((len(prompts), self.width), dtype=np.float32)
        shared, layers = self._known_opening(prompts)
        done = 0
        for group in _grouped(pack([prompt[shared:] for prompt in prompts], self.pack_tokens), self.batch_tokens):
            batch = packed_batch(group).to(self.backbone.device)
            read = np.zeros((len(group), max(len(tree.read) for tree in group)), dtype=np.int64)
            for line, tree in enumerate(group):
                read[line, : len(tree.read)] = tree.read
            arguments = self.backbone.pack_arguments(batch, form, layers)
            states = self.backbone.states_at(batch.ids, self._tensor(read), **arguments).float().cpu().numpy()
            for line, tree in enumerate(group):
                thoughts[tree.sequences] = states[line, : len(tree.read)]
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
            read = self._tensor(lengths[batch, None] - 1)
            states = self.backbone.states_at(self._tensor(ids), read, attention_mask=mask, use_cache=False)
            thoughts[batch] = states[:, 0].float().cpu().numpy()
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
