"""The opening probe: does this family compute the same thought in a pack as alone?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from l2d.backbone.masks import MaskForm, packed_batch
from l2d.backbone.model import Backbone
from l2d.packing import pack

PROBE_SHORT = 24
"""Tokens of the probe's ordinary prompts."""


ATTENTION = {"full_attention", "sliding_attention"}
"""Layers whose view a mask decides."""


@dataclass(frozen=True)
class PackProbe:
    """What the probe found.

    Args:
        form: how the family takes a pack's mask; None where it cannot be packed.
        error: largest difference from the prompts alone, relative to the states' scale, of the form taken or of the
            best form tried.
        reason: one line for people and the manifest.
    """

    form: MaskForm | None
    error: float
    reason: str


def tolerance(dtype: torch.dtype) -> float:
    """Largest relative difference that counts as the same computation: rounding only."""
    return 1e-5 if dtype == torch.float32 else 5e-2


@torch.inference_mode()
def probe_packing(backbone: Backbone, *, longest: int = 1024) -> PackProbe:
    """Runs five prompts packed and alone, one of them longer than the smallest attention window.

    Args:
        backbone: any.
        longest: most tokens that prompts will have; a window beyond that never matters.
    """
    other = sorted(backbone.layer_types - ATTENTION)
    if other:
        # In bfloat16 the trial's tolerance is wide, and a recurrent layer's error could pass below it.
        return PackProbe(
            None, float("inf"), f"right-padded batches: a mask does not decide what {', '.join(other)} layers see"
        )
    window = backbone.window
    matters = window is not None and window < max(longest, 3 * PROBE_SHORT)  # the trial's own prompts fill that much
    prompts = _probe_prompts(backbone, window + 9 if matters and window else PROBE_SHORT + 9)
    alone = torch.stack([_alone(backbone, prompt) for prompt in prompts])
    scale = alone.abs().max().item() or 1.0
    forms = [MaskForm.MAPPING, MaskForm.WINDOWED, MaskForm.FULL] if matters else [MaskForm.FULL, MaskForm.MAPPING]
    best = float("inf")
    for form in forms:
        error = _error(backbone, prompts, alone, form) / scale
        best = min(best, error)
        if error <= tolerance(backbone.dtype):
            return PackProbe(form, error, f"packs: {form} mask, error {error:.1e} of the states' scale")
    what = (
        "this family refuses a pack's mask"
        if best == float("inf")
        else f"packed states differ by {best:.1e} of their scale"
    )
    return PackProbe(None, best, f"right-padded batches: {what}")


def _probe_prompts(backbone: Backbone, long: int) -> list[NDArray[np.int32]]:
    generator = np.random.default_rng(0)
    vocabulary = backbone.model.get_input_embeddings().weight.shape[0]
    a, b, c, d = (generator.integers(0, vocabulary, size=PROBE_SHORT // 2).astype(np.int32) for _ in range(4))
    tail = generator.integers(0, vocabulary, size=long).astype(np.int32)
    joined = [a, np.concatenate([a, b]), np.concatenate([a, c, b]), d, np.concatenate([a, c, tail])]
    return joined


def _alone(backbone: Backbone, prompt: NDArray[np.int32]) -> torch.Tensor:
    ids = torch.from_numpy(prompt.astype(np.int64))[None].to(backbone.device)
    return backbone.last_states(ids)[0, -1].float()


def _error(backbone: Backbone, prompts: list[NDArray[np.int32]], alone: torch.Tensor, form: MaskForm) -> float:
    (tree,) = pack(prompts, budget=sum(len(prompt) for prompt in prompts))
    batch = packed_batch([tree]).to(backbone.device)
    try:
        states = backbone.packed_states(batch, form)[0]
    except Exception:  # noqa: BLE001 - each family refuses a mask in its own way: TypeError, IndexError, ...
        return float("inf")
    found = states[torch.from_numpy(tree.read.astype(np.int64)).to(states.device)].float()
    expected = alone[torch.from_numpy(tree.sequences).to(alone.device)]
    error = (found - expected).abs().max().item()
    return float("inf") if math.isnan(error) else error
