"""Both item heads against plain arithmetic: softmax regression by hand, and one prompt at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from families import TITLES, open_family
from l2d.backbone import Backbone, probe_packing
from l2d.baselines import ItemHead, ItemHeadConfig, ItemHeadTuned, ItemHeadTunedConfig
from l2d.baselines.item_head import Head, head_scores
from l2d.baselines.item_head_tuned import prompt_loss
from l2d.baselines.known import KnownItems
from l2d.baselines.windows import Window
from l2d.catalog import Catalog
from l2d.errors import ConfigError
from l2d.interactions import Examples, Interactions, examples_of
from l2d.memory import Entries
from l2d.prompts import COMPACT, INSTRUCT, Prompts, Template
from l2d.ranking import NOTHING, Requests
from l2d.testing import ToyWorld, check_decoder, toy_world

CATALOG = Catalog.from_titles(TITLES)


def numpy_scores(head: Head, thoughts: NDArray[Any]) -> NDArray[np.float64]:
    """Log-probabilities in float64. Shape: (n, known)."""
    weights = {name: tensor.double().numpy() for name, tensor in head.state_dict().items()}
    scores = (thoughts - weights["mean"]) / weights["deviation"] @ weights["weight"].T + weights["bias"]
    scores -= scores.max(axis=1, keepdims=True)
    return scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))


def random_head(width: int = 7, known: int = 9) -> tuple[Head, NDArray[np.float32]]:
    generator = np.random.default_rng(0)
    thoughts = (generator.standard_normal((20, width)) * np.logspace(-2, 2, width) + 3).astype(np.float32)
    head = Head(width, known, dropout=0.0)
    head.start(thoughts, generator.integers(1, 9, size=known))
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(generator.standard_normal((known, width))))
    return head, thoughts


def test_a_head_is_softmax_regression_on_standardised_thoughts() -> None:
    head, thoughts = random_head()
    expected = numpy_scores(head, thoughts)
    assert head_scores(head, thoughts) == pytest.approx(expected, abs=1e-4)
    standard = (thoughts - thoughts.mean(axis=0, dtype=np.float64)) / thoughts.std(axis=0, dtype=np.float64)
    labels = np.arange(20) % 9
    functional.cross_entropy(head(torch.from_numpy(thoughts)), torch.from_numpy(labels)).backward()
    slope = (np.exp(expected) - np.eye(9)[labels]) / 20
    assert head.weight.grad is not None
    assert head.bias.grad is not None
    assert head.weight.grad.numpy() == pytest.approx(slope.T @ standard, abs=1e-5)
    assert head.bias.grad.numpy() == pytest.approx(slope.sum(axis=0), abs=1e-6)


def test_before_its_first_step_a_head_knows_popularity() -> None:
    head = Head(3, 4, dropout=0.0)
    head.start(np.ones((5, 3), dtype=np.float16), np.array([1, 2, 3, 4]))  # a constant value has no deviation
    shares = np.exp(head_scores(head, np.ones((2, 3), dtype=np.float32)))
    assert shares == pytest.approx(np.array([[0.1, 0.2, 0.3, 0.4]] * 2), abs=1e-6)


def memory_of(world: ToyWorld, dtype: str = "float32") -> Entries:
    train = world.dataset.splits.train
    thoughts = think(world, train.histories()).astype(dtype)
    users = world.dataset.interactions.user_ids
    return Entries(thoughts, train.target, train.user, train.timestamp, np.arange(len(train)), users)


def think(world: ToyWorld, histories: list[NDArray[np.int32]]) -> NDArray[np.float32]:
    return world.thinker.think([world.prompts.prompt(history) for history in histories])


def fitted(world: ToyWorld, dtype: str = "float32", folder: Path | None = None, **more: Any) -> ItemHead:
    config = ItemHeadConfig(epochs=25, patience=25, learning_rate=0.02, batch=20)
    entries = memory_of(world, dtype)
    valid = world.dataset.splits.valid
    return ItemHead.fit(entries, valid, lambda rows: think(world, list(rows)), world.items, config, folder, **more)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_toy_world_is_learnt_from_frozen_thoughts(dtype: str) -> None:
    world = toy_world()
    head = fitted(world, dtype)
    check_decoder(head, world.requests(), world.items, targets=world.targets, tolerance=1e-5)
    ranked = head.rank(world.requests(), world.items)
    entries = memory_of(world)
    assert set(np.unique(ranked.rows)) == {NOTHING, *entries.row.tolist()}, "unknown items are never listed"
    thoughts = world.requests().thoughts
    assert thoughts is not None
    expected = np.sort(numpy_scores(head.head, thoughts), axis=1)[:, ::-1]
    assert ranked.scores[:, : expected.shape[1]] == pytest.approx(expected, abs=1e-3)


def test_a_kept_head_is_loaded_without_thinking(tmp_path: Path) -> None:
    world = toy_world()
    first = fitted(world, folder=tmp_path)

    def refuse(_: object) -> NDArray[np.float32]:
        raise AssertionError("validation thoughts are for training only")

    config = ItemHeadConfig(epochs=25, patience=25, learning_rate=0.02, batch=20)
    again = ItemHead.fit(memory_of(world), world.dataset.splits.valid, refuse, world.items, config, tmp_path)
    assert again.rank(world.requests(), 5).scores.tobytes() == first.rank(world.requests(), 5).scores.tobytes()
    entries = memory_of(world)
    fewer = entries.take(np.arange(len(entries) - 1))
    with pytest.raises(AssertionError, match="training only"):  # a memory that changed needs another head
        ItemHead.fit(fewer, world.dataset.splits.valid, refuse, world.items, config, tmp_path)


def test_requests_without_thoughts_are_refused() -> None:
    head, _ = random_head()
    peer = ItemHead(head, KnownItems.of(np.arange(9, dtype=np.int32), 9))
    with pytest.raises(ConfigError, match="item-head needs the requests' thoughts"):
        peer.rank(Requests([np.array([1], dtype=np.int32)]), 3)


def log(users: int = 10, seed: int = 0) -> Examples:
    generator = np.random.default_rng(seed)
    sizes = generator.integers(3, 8, size=users)
    row = generator.integers(0, len(TITLES) - 2, size=sizes.sum()).astype(np.int32)
    who = np.repeat(np.arange(users, dtype=np.int32), sizes)
    names = tuple(f"user {index}" for index in range(users))
    return examples_of(Interactions(names, who, row, np.arange(len(row), dtype=np.int64)), 5)


def open_all(family: str, folder: Path, template: Template = COMPACT, dtype: str = "float32") -> Any:
    backbone = open_family(family, folder, dtype)
    prompts = Prompts.compile(template, backbone.tokenizer, CATALOG, max_tokens=200)
    return backbone, prompts, probe_packing(backbone, longest=200)


WINDOWS = [
    Window(np.array([3, 4, 9, 11], np.int32), True),
    Window(np.array([3, 4, 2, 20], np.int32), False),
    Window(np.array([35, 3, 35], np.int32), True),  # row 35 is not known: history, and no target
]


def slopes(module: nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    module.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("template", [COMPACT, INSTRUCT], ids=lambda template: template.name)
@pytest.mark.parametrize("family", ["qwen3", "gpt2", "gemma3", "lfm2"])
def test_loss_and_gradient_are_those_of_one_prompt_at_a_time(family: str, template: Template, tmp_path: Path) -> None:
    backbone, prompts, probe = open_all(family, tmp_path, template)
    assert (probe.form is None) == (family == "lfm2")
    known = KnownItems.of(np.arange(len(TITLES) - 1, dtype=np.int32), len(TITLES))
    head, _ = random_head(backbone.width, len(known))
    peer = ItemHeadTuned(backbone, head, known, prompts, probe)
    module = peer.module
    loss = prompt_loss(peer, WINDOWS, pack_tokens=120)
    found = slopes(module, loss)
    alone = []
    for rows, opens in WINDOWS:
        for place in range(0 if opens else 1, len(rows)):
            if rows[place] == len(TITLES) - 1:
                continue
            ids = torch.from_numpy(prompts.prompt(rows[:place]).astype(np.int64))[None]
            states = backbone.model.base_model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
            alone.append(functional.cross_entropy(head(states[:, -1]), torch.tensor([int(rows[place])])))
    assert len(alone) == 8
    expected_loss = torch.stack(alone).mean()
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-5)
    expected = slopes(module, expected_loss)
    scale = max(value.abs().max().item() for value in expected.values())
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name] - value).abs().max().item() <= 2e-5 * scale, name


TUNED = ItemHeadTunedConfig(epochs=3, batch=4, learning_rate=1e-2, pack_tokens=64)


def tuned(opened: Any, folder: Path | None = None, **more: Any) -> ItemHeadTuned:
    return ItemHeadTuned.fit(log(), log(8, seed=1), len(TITLES), *opened, TUNED, folder, **more)


@pytest.mark.parametrize("family", ["qwen3", "lfm2"])
def test_a_tuned_head_keeps_the_contract_and_leaves_the_runs_backbone_alone(family: str, tmp_path: Path) -> None:
    opened = open_all(family, tmp_path / "backbone")
    before = opened[0].fingerprint
    peer = tuned(opened)
    original = Backbone(opened[0].model, opened[0].tokenizer, "original")
    assert original.fingerprint == before
    assert peer.backbone.fingerprint != before, "the copy is tuned"
    assert not peer.backbone.model.training
    requests = Requests(log(8, seed=1).histories()[:6])
    check_decoder(peer, requests, len(TITLES), tolerance=1e-4)
    unknown = set(range(len(TITLES))) - set(log().target.tolist())
    assert unknown
    assert not unknown & set(peer.rank(requests, len(TITLES)).rows.ravel().tolist())


def test_a_tuned_head_scores_prompts_read_alone(tmp_path: Path) -> None:
    opened = open_all("qwen3", tmp_path)
    peer = tuned(opened)
    histories = log(8, seed=1).histories()[:5]
    ranked = peer.rank(Requests(histories), 4)
    for history, rows, scores in zip(histories, ranked.rows, ranked.scores, strict=True):
        ids = torch.from_numpy(opened[1].prompt(history).astype(np.int64))[None]
        with torch.no_grad():
            thought = peer.backbone.model.base_model(input_ids=ids).last_hidden_state[0, -1:].numpy()
        expected = numpy_scores(peer.head, thought)[0]
        best = np.argsort(-expected, kind="stable")[:4]
        assert peer.known.rows[best].tolist() == rows.tolist()
        assert scores == pytest.approx(expected[best], abs=1e-4)


class Killed(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize(("family", "dtype"), [("qwen3", "float32"), ("lfm2", "float32"), ("qwen3", "bfloat16")])
def test_an_interrupted_tuning_ends_as_an_uninterrupted_one(family: str, dtype: str, tmp_path: Path) -> None:
    opened = open_all(family, tmp_path / "backbone", dtype=dtype)
    expected = tuned(opened)

    def kill(done: int, total: int) -> None:
        if done == total // 2:
            raise Killed

    with pytest.raises(Killed):
        tuned(opened, tmp_path / "peer", progress=kill)
    resumed = tuned(opened, tmp_path / "peer")
    bar: list[int] = []
    loaded = tuned(opened, tmp_path / "peer", progress=lambda done, _: bar.append(done))
    assert not bar
    requests = Requests(log(8, seed=1).histories())
    for peer in (resumed, loaded):
        assert peer.backbone.dtype == opened[0].dtype
        assert peer.backbone.fingerprint == expected.backbone.fingerprint
        assert peer.scores == expected.scores
        assert peer.rank(requests, 5).scores.tobytes() == expected.rank(requests, 5).scores.tobytes()


def test_costs_are_booked(tmp_path: Path) -> None:
    peer = tuned(open_all("qwen3", tmp_path))
    assert peer.meter.model_calls == 0, "training is not an answer"
    for history in log(8, seed=1).histories()[:3]:
        peer.rank(Requests([history]), 3)
    assert peer.meter.model_calls == 3
    assert peer.meter.seconds["decode"] == 0
    assert all(peer.meter.seconds[name] > 0 for name in ("tokenise", "prefill", "search"))


def test_a_batch_without_a_known_target_costs_nothing(tmp_path: Path) -> None:
    peer = tuned(open_all("qwen3", tmp_path))
    unknown = int(np.setdiff1d(np.arange(len(TITLES)), log().target)[0])
    assert prompt_loss(peer, [Window(np.array([unknown], np.int32), True)], 64).item() == 0
