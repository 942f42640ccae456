"""A thought is the plain model's last state, alone, in any batch, in any pack, in any order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from families import FAMILIES, PACKED, WINDOW, open_family
from l2d.backbone import Backbone, PackProbe, probe_packing
from l2d.thoughts import TorchThinker

PADDED = PackProbe(None, float("inf"), "as if the family could not be packed")


def some_prompts(vocabulary: int, seed: int = 0) -> list[NDArray[np.int32]]:
    """Shared prefixes, one that is a prefix of others, a duplicate, a single token, some longer than the window."""
    generator = np.random.default_rng(seed)
    opening, middle, long = (generator.integers(0, vocabulary, size=size) for size in (5, 6, 3 * WINDOW))
    tails = [generator.integers(0, vocabulary, size=size) for size in (1, 4, 9, 2)]
    prompts = [np.concatenate([opening, tail]) for tail in tails]
    prompts += [opening, np.concatenate([opening, middle]), np.concatenate([opening, middle, tails[2]])]
    prompts += [np.concatenate([opening, long]), np.concatenate([opening, long, tails[1]]), prompts[1], opening[:1]]
    prompts += [np.concatenate([tails[3], long[: 2 * WINDOW]])]
    return [prompt.astype(np.int32) for prompt in prompts]


@torch.inference_mode()
def oracle(backbone: Backbone, prompts: list[NDArray[np.int32]]) -> NDArray[np.float32]:
    """The plain forward of transformers on one prompt without padding: the last of the hidden states it hands out."""
    states = []
    for prompt in prompts:
        ids = torch.from_numpy(prompt.astype(np.int64))[None]
        output = backbone.model(ids, attention_mask=torch.ones_like(ids), output_hidden_states=True)
        states.append(output.hidden_states[-1][0, -1].float().numpy())
    return np.stack(states)


def thinkers(backbone: Backbone) -> dict[str, TorchThinker]:
    probe = probe_packing(backbone, longest=256)
    made = {"as opened": TorchThinker(backbone, probe), "padded": TorchThinker(backbone, PADDED, batch_tokens=150)}
    if probe.form is not None:
        for tokens in (16, 40, 80):
            made[f"packs of {tokens}"] = TorchThinker(backbone, probe, pack_tokens=tokens, batch_tokens=90)
    return made


@pytest.mark.parametrize("family", FAMILIES)
def test_thoughts_are_the_plain_models_last_states(family: str, tmp_path: Path) -> None:
    backbone = open_family(family, tmp_path)
    prompts = some_prompts(backbone.tokenizer.size)
    expected = oracle(backbone, prompts)
    near = 1e-5 * np.abs(expected).max()
    assert np.abs(expected[:, None] - expected[None]).max(-1)[np.triu_indices(len(prompts), 1)].max() > 1e3 * near
    order = np.random.default_rng(1).permutation(len(prompts))
    for name, thinker in thinkers(backbone).items():
        assert np.abs(thinker.think(prompts) - expected).max() <= near, name
        assert np.abs(thinker.think([prompts[i] for i in order]) - expected[order]).max() <= near, f"{name}, shuffled"
        assert np.abs(thinker.think(prompts[3:6]) - expected[3:6]).max() <= near, f"{name}, a part"
    alone = TorchThinker(backbone, PADDED)
    for prompt, state in zip(prompts, expected, strict=True):
        assert np.abs(alone.think([prompt])[0] - state).max() <= near


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_thoughts_point_the_same_way(family: str, tmp_path: Path) -> None:
    backbone = open_family(family, tmp_path, "bfloat16")
    prompts = some_prompts(backbone.tokenizer.size)
    expected = oracle(backbone, prompts)
    for name, thinker in thinkers(backbone).items():
        found = thinker.think(prompts)
        assert found.dtype == np.float32
        cosine = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
        assert cosine.min() >= 0.999, name


@pytest.mark.parametrize("family", [*PACKED[:1], "lfm2"])
def test_progress_reaches_the_end(family: str, tmp_path: Path) -> None:
    backbone = open_family(family, tmp_path)
    prompts, calls = some_prompts(backbone.tokenizer.size), list[tuple[int, int]]()
    thinker = TorchThinker(backbone, probe_packing(backbone, longest=256), pack_tokens=32, batch_tokens=64)
    assert thinker.think(prompts, lambda done, total: calls.append((done, total))).shape == (len(prompts), 32)
    assert calls[-1] == (len(prompts), len(prompts))
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})
    assert len(calls) > 1


@pytest.mark.parametrize("family", [*PACKED[:1], "lfm2"])
def test_no_prompts_give_no_thoughts(family: str, tmp_path: Path) -> None:
    assert TorchThinker(open_family(family, tmp_path)).think([]).shape == (0, 32)
