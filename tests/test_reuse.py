"""Known beginnings of prompts: found, kept within bounds, and worth the same thought as reading the whole prompt."""

from __future__ import annotations

import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from families import FAMILIES, SLIDING, open_family
from l2d.backbone import Backbone, probe_packing
from l2d.packing import pack
from l2d.thoughts import TorchThinker
from l2d.thoughts.reuse import PrefixCache

ROOM = 1 << 20

tokens = st.lists(st.integers(0, 2), min_size=1, max_size=6)


def layers_of(prompt: list[int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Keys and values that say which token of which prompt they belong to."""
    keys = torch.tensor([prompt[: place + 1] + [9] * (6 - place) for place in range(len(prompt))])[None, None].float()
    return [(keys, -keys)]


def array(prompt: list[int]) -> NDArray[np.int32]:
    return np.array(prompt, dtype=np.int32)


@given(st.lists(tokens, max_size=12), tokens)
def test_the_longest_known_beginning_is_found(known: list[list[int]], asked: list[int]) -> None:
    cache = PrefixCache(ROOM)
    for prompt in known:
        cache.add(array(prompt), layers_of(prompt))
    longest = max(
        (next((i for i, (a, b) in enumerate(zip(one, asked, strict=False)) if a != b), min(len(one), len(asked))))
        for one in [*known, []]
    )
    shared, layers = cache.longest(array(asked))
    assert shared == longest
    if shared:
        keys, values = layers[0]
        assert torch.equal(keys, layers_of(asked[:shared])[0][0]) and torch.equal(values, -keys)


@given(st.lists(tokens, max_size=20), st.integers(1, 12))
def test_memory_stays_within_its_bound(known: list[list[int]], room: int) -> None:
    one_token = sum(tensor.nbytes for tensor in layers_of([0])[0])
    cache = PrefixCache(room * one_token)
    for prompt in known:
        cache.add(array(prompt), layers_of(prompt))
        held = [one for one in (cache.longest(array(p))[1] for p in known) if one]
        assert cache.bytes <= room * one_token and (held or not cache.bytes)
    for prompt in known:
        cache.longest(array(prompt))
    assert len(cache) <= room


def test_the_prompt_that_was_not_asked_for_longest_leaves() -> None:
    cache = PrefixCache(4 * sum(tensor.nbytes for tensor in layers_of([0])[0]))
    for first in (0, 1):
        cache.add(array([first, 2]), layers_of([first, 2]))
    assert cache.longest(array([0]))[0] == 1
    cache.add(array([2, 2]), layers_of([2, 2]))
    assert [cache.longest(array([first]))[0] for first in (0, 1, 2)] == [1, 0, 1]


def test_a_grown_history_replaces_its_shorter_self() -> None:
    cache = PrefixCache(ROOM)
    for length in range(1, 6):
        cache.add(array([1] * length), layers_of([1] * length))
    assert len(cache) == 1 and cache.longest(array([1] * 9))[0] == 5


def growing(vocabulary: int) -> list[NDArray[np.int32]]:
    """Two users' prompts in turn, each going on from its last one; then one that was cut, and one asked twice."""
    generator = np.random.default_rng(3)
    opening, *tails = (generator.integers(0, vocabulary, size=size).astype(np.int32) for size in (12, 30, 25))
    prompts = [np.concatenate([opening, tail[:length]]) for length in (3, 9, 10, 24) for tail in tails]
    return [*prompts, np.concatenate([opening, tails[0][20:]]), prompts[3], prompts[3], opening, opening[:5]]


def plain(backbone: Backbone, prompt: NDArray[np.int32]) -> NDArray[np.float32]:
    with torch.inference_mode():
        ids = torch.from_numpy(prompt.astype(np.int64))[None]
        return backbone.base(input_ids=ids, use_cache=False).last_hidden_state[0, -1].float().numpy()


@pytest.mark.parametrize("family", FAMILIES)
def test_reused_beginnings_give_the_plain_models_thoughts(family: str, tmp_path: Path) -> None:
    backbone = open_family(family, tmp_path)
    prompts = growing(backbone.tokenizer.size)
    thinker = TorchThinker(
        backbone, probe_packing(backbone, longest=256), opening=prompts[0][:12], reuse_bytes=ROOM
    )  # fmt: skip
    seen: list[int] = []
    whole = backbone.states_at

    def watched(ids: torch.Tensor, *rest: object, **more: object) -> torch.Tensor:
        seen.append(ids.shape[1])
        return whole(ids, *rest, **more)  # type: ignore[arg-type]

    backbone.states_at = watched  # type: ignore[method-assign]
    for prompt in prompts:
        expected = plain(backbone, prompt)
        assert np.abs(thinker.think([prompt])[0] - expected).max() <= 1e-5 * np.abs(expected).max()
    if family in (*SLIDING, "lfm2"):
        assert seen == [len(prompt) for prompt in prompts], "no reuse where a cache may drop tokens"
    else:
        assert seen[:5] == [12, 4, 3, 6, 6] and sum(seen) < 0.5 * sum(map(len, prompts))


@pytest.mark.parametrize("family", [*FAMILIES[:3], "gemma3", "lfm2"])
def test_packs_stand_behind_an_opening_that_was_read_once(family: str, tmp_path: Path) -> None:
    backbone = open_family(family, tmp_path)
    *prompts, other = growing(backbone.tokenizer.size)
    thinker = TorchThinker(backbone, probe_packing(backbone, longest=256), opening=prompts[-1], pack_tokens=40)
    for asked in (prompts, [*prompts, other]):
        expected = np.stack([plain(backbone, prompt) for prompt in asked])
        assert np.abs(thinker.think(asked) - expected).max() <= 1e-5 * np.abs(expected).max()
    if family in ("llama", "qwen3", "gpt2"):
        lengths = Counter[int]()
        whole = backbone.states_at
        backbone.states_at = lambda ids, *rest, **more: lengths.update([ids.numel()]) or whole(ids, *rest, **more)  # type: ignore
        thinker.think(prompts)
        behind = sum(len(tree) for tree in pack([prompt[11:] for prompt in prompts], 40))
        assert behind <= sum(size * times for size, times in lengths.items()) < 1.3 * behind


def test_without_room_only_the_opening_is_reused(tmp_path: Path) -> None:
    backbone = open_family("qwen3", tmp_path)
    prompts = growing(backbone.tokenizer.size)
    thinker = TorchThinker(backbone, probe_packing(backbone), opening=prompts[0][:12])
    twice = [thinker.think([prompts[5]])[0] for _ in range(2)]
    assert np.array_equal(*twice), "what was thought before must not matter"
    assert np.abs(twice[0] - plain(backbone, prompts[5])).max() < 1e-5 * np.abs(twice[0]).max()


def test_other_weights_forget_what_was_known(tmp_path: Path) -> None:
    backbone, other = (open_family("qwen3", tmp_path / str(seed), seed=seed) for seed in (0, 1))
    prompts = growing(backbone.tokenizer.size)
    thinker = TorchThinker(backbone, probe_packing(backbone), opening=prompts[0][:12], reuse_bytes=ROOM)
    thinker.think([prompts[5]])
    backbone.take(other.model)
    for asked in ([prompts[5]], prompts[:-1]):
        expected = np.stack([plain(other, prompt) for prompt in asked])
        assert np.abs(thinker.think(asked) - expected).max() <= 1e-5 * np.abs(expected).max()


def test_what_is_kept_does_not_change_with_the_callers_array() -> None:
    cache, prompt = PrefixCache(ROOM), array([1, 2, 1])
    cache.add(prompt, layers_of([1, 2, 1]))
    prompt[:] = 0
    assert cache.longest(array([1, 2, 1]))[0] == 3 and cache.longest(array([0]))[0] == 0


def test_threads_may_share_what_is_known() -> None:
    cache = PrefixCache(40 * sum(tensor.nbytes for tensor in layers_of([0])[0]))
    generator = np.random.default_rng(0)
    prompts = [generator.integers(0, 3, size=size).tolist() for size in generator.integers(1, 6, size=400)]

    def use(part: list[list[int]]) -> None:
        for one in part:
            cache.add(array(one), layers_of(one))
            cache.longest(array(one))

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(use, [prompts[i::4] for i in range(4)]))
    finally:
        sys.setswitchinterval(before)
    assert cache.bytes == sum(known.bytes for known in cache._known.values()) <= cache.most_bytes
    assert sorted(cache._known) == cache._sorted


def test_another_beginning_than_the_opening_is_read_whole(tmp_path: Path) -> None:
    backbone = open_family("llama", tmp_path)
    prompts = growing(backbone.tokenizer.size)
    thinker = TorchThinker(backbone, probe_packing(backbone), opening=prompts[0][:12])
    other = prompts[6][9:]
    assert np.abs(thinker.think([other])[0] - plain(backbone, other)).max() < 1e-4
