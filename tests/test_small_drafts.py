"""Drafts change the number of passes and nothing else: the list is Beam's, whatever the drafter says."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from l2d.backbone import Backbone
from l2d.errors import ArtifactMismatch, ConfigError
from l2d.language import Beam, SmallDrafts
from l2d.language.forward import CachedForward, PlainForward
from l2d.ranking import Rankings, Requests
from l2d.testing import check_decoder
from titles import CONFIGS, SHAPE, FakePrompts, assert_same, backbone, histories, plain_search, series


def speaking(body: Backbone, words: str = "words") -> Backbone:
    return Backbone(body.model, SimpleNamespace(fingerprint=words), body.name)  # type: ignore[arg-type]


def small(family: str, seed: int = 2, sharpness: float = 6.0) -> Backbone:
    """One layer, random: it agrees with the large model on hardly anything."""
    name, extra = CONFIGS[family]
    layers = {"num_hidden_layers": 1} | ({"layer_types": extra["layer_types"][:1]} if "layer_types" in extra else {})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = getattr(transformers, name)(**{**SHAPE, **extra, **layers})
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(sharpness)
    return speaking(Backbone(model, None, f"small {family}"))  # type: ignore[arg-type]


def assert_equal(found: Rankings, expected: Rankings) -> None:
    assert (found.rows == expected.rows).all()
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize("family", ["llama", "gemma3", "lfm2"])
def test_the_list_is_beams_whatever_the_drafter_says(family: str, batch_size: int) -> None:
    body, other = speaking(backbone(family)), small("llama" if family == "lfm2" else family, seed=batch_size)
    for seed in range(3):
        prompts = series(40, seed=seed)
        requests = Requests(histories(prompts, 8, seed=seed))
        expected = Beam(body, prompts, prompts.catalog, beams=4).rank(requests, 4)
        for drafts in (1, None):
            drafted = SmallDrafts(
                body, prompts, prompts.catalog, drafter=other, beams=4, batch_size=batch_size, drafts=drafts
            )
            assert isinstance(drafted.forward, PlainForward if family == "lfm2" else CachedForward)
            assert_equal(drafted.rank(requests, 4), expected)


def test_a_narrow_beam_equals_a_plain_search() -> None:
    prompts, body = series(40, seed=3), speaking(backbone("llama"))
    requests = Requests(histories(prompts, 6, seed=1))
    answers = [tuple(prompts.answer(row).tolist()) for row in range(40)]
    expected = [plain_search(body.model, prompts.prompt(h).tolist(), answers, 2) for h in requests.histories]
    drafted = SmallDrafts(body, prompts, prompts.catalog, drafter=small("llama"), beams=2)
    assert_same(drafted.rank(requests, 2), expected)


def calls(decoder: Beam, history: np.ndarray, k: int) -> int:
    decoder.meter.reset()
    decoder.rank(Requests([history]), k)
    return decoder.meter.model_calls


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_drafter_that_is_the_large_model_gives_the_fewest_calls(steps: int) -> None:
    prompts, body = series(40, seed=3), speaking(backbone("llama"))
    beam = Beam(body, prompts, prompts.catalog, beams=3)
    drafted = SmallDrafts(body, prompts, prompts.catalog, drafter=body, beams=3, steps=steps)
    saved = 0
    for history in histories(prompts, 6, seed=4):
        plain, found = calls(beam, history, 3), calls(drafted, history, 3)
        assert found == 1 + math.ceil((plain - 1) / (1 + steps))
        assert 1 < drafted.meter.draft_calls <= 1 + (found - 1) * (steps + 1)
        saved += plain - found
    assert saved >= 6  # at least one for each


def test_no_drafter_costs_more_calls_than_beam() -> None:
    """A round takes at least the step that it begins with; a draft of one hypothesis can hardly hold another."""
    prompts, body = series(40, seed=3), speaking(backbone("llama"))
    beam = Beam(body, prompts, prompts.catalog, beams=3)
    for seed in range(3):
        drafted = SmallDrafts(body, prompts, prompts.catalog, drafter=small("llama", seed), beams=3, drafts=1)
        for history in histories(prompts, 4, seed=seed):
            assert calls(drafted, history, 3) <= calls(beam, history, 3)


def test_wider_drafts_are_accepted_more_often() -> None:
    prompts, body = series(60, seed=3), speaking(backbone("llama"))
    counted = []
    for drafts in (1, 6, 60):
        drafted = SmallDrafts(body, prompts, prompts.catalog, drafter=small("llama"), beams=3, drafts=drafts)
        counted.append(sum(calls(drafted, history, 3) for history in histories(prompts, 8)))
    assert counted[0] > counted[1] > counted[2]
    assert counted[2] == 2 * 8  # the whole trie is drafted: the prompt, then one pass


@settings(max_examples=25, deadline=None)
@given(
    titles=st.lists(st.lists(st.integers(2, 5), min_size=1, max_size=6), min_size=1, max_size=25),
    beams=st.integers(1, 6),
    k=st.integers(1, 8),
    steps=st.integers(1, 4),
    drafts=st.integers(1, 12),
    banned=st.sets(st.integers(0, 24)),
)
def test_any_trie_any_draft(
    titles: list[list[int]], beams: int, k: int, steps: int, drafts: int, banned: set[int]
) -> None:
    prompts, body = FakePrompts(titles), speaking(backbone("llama"))
    out = np.array([row for row in banned if row < len(titles)], dtype=np.int32)
    requests = Requests([np.array([0], dtype=np.int32), np.array([], dtype=np.int32)], exclude=[out, out[:0]])
    drafted = SmallDrafts(
        body, prompts, prompts.catalog, drafter=small("llama"), beams=beams, steps=steps, drafts=drafts
    )
    assert_equal(
        drafted.rank(requests, k), Beam(body, prompts, prompts.catalog, beams=beams, batch_size=1).rank(requests, k)
    )


def test_the_contract_of_every_decoder() -> None:
    prompts = series(30, seed=2)
    drafted = SmallDrafts(
        speaking(backbone("llama")), prompts, prompts.catalog, drafter=small("llama"), beams=33, batch_size=3
    )
    check_decoder(drafted, Requests(histories(prompts, 5, seed=5)), 30, tolerance=1e-4)
    assert (drafted.name, drafted.needs_thoughts) == ("small-drafts", False)


def test_a_drafter_of_other_tokens_is_refused_by_name() -> None:
    prompts, body = series(), speaking(backbone("llama"))
    stranger = speaking(backbone("gpt2"), "other words")
    with pytest.raises(ArtifactMismatch, match=r"the drafter gpt2 .* than llama .*other words.*words"):
        SmallDrafts(body, prompts, prompts.catalog, drafter=stranger)
    for options in ({"steps": 0}, {"drafts": 0}, {"beams": 0}, {"batch_size": 0}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            SmallDrafts(body, prompts, prompts.catalog, drafter=body, **options)
