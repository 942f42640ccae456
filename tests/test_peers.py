"""Training against a plain loop, interrupted against uninterrupted; what is kept of a peer, and when it counts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from l2d.baselines import SASRec, SASRecConfig
from l2d.baselines.fitting import FitConfig, fit, learning_rate_share
from l2d.baselines.peers import CHECKPOINT, PEER, Shelf, Trained, open_peer
from l2d.errors import ArtifactCorrupt, ConfigError
from l2d.ranking import Requests
from l2d.testing import ToyWorld, toy_world

MADE_FROM = {"identity": {"data": "a"}, "config": {}}
WEIGHTS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2])}


class Line:
    """Learns a straight line through noisy points; scores are scripted."""

    steps = 3

    def __init__(self, scores: list[float]) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(7)
            self.module: nn.Module = nn.Sequential(nn.Dropout(0.3), nn.Linear(4, 1))
            self.inputs, self.targets = torch.randn(12, 4), torch.randn(12, 1)
        self.script = iter(scores)

    def groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.module.parameters()), "peak": 0.1}]

    def losses(self, epoch: int) -> Iterator[torch.Tensor]:
        for part in torch.randperm(12).split(4):
            yield functional.mse_loss(self.module(self.inputs[part]), self.targets[part])

    def score(self) -> float:
        assert not self.module.training
        return next(self.script)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_fit_is_adamw_under_the_schedule() -> None:
    """Without dropout or shuffling left to chance, against torch's own optimizer and scheduler."""
    config = FitConfig(epochs=3, warmup=0.25, weight_decay=0.1, clip=0.5)
    learner, plain = Line([0.1, 0.2, 0.3]), Line([])
    for line in (learner, plain):
        line.module[0].p = 0.0  # type: ignore[index]
        line.losses = lambda epoch, line=line: (  # type: ignore[method-assign]
            functional.mse_loss(line.module(line.inputs[part]), line.targets[part])
            for part in torch.arange(12).split(4)
        )
    trained = fit(learner, config)
    optimizer = torch.optim.AdamW(plain.module.parameters(), lr=0.1, betas=(0.9, 0.98), weight_decay=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_share(step, 9, 0.25))
    for epoch in range(3):
        for loss in plain.losses(epoch):
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(plain.module.parameters(), 0.5)
            optimizer.step()
            scheduler.step()
    assert same(trained.weights, plain.module.state_dict())
    assert trained.scores == [0.1, 0.2, 0.3]


def test_the_rate_rises_straight_and_falls_as_a_cosine() -> None:
    shares = [learning_rate_share(step, 108, 8 / 108) for step in range(108)]
    assert shares[:8] == pytest.approx([(step + 1) / 9 for step in range(8)])
    assert shares[8] == 1.0
    assert shares[58] == pytest.approx(0.5)
    assert 0 < shares[-1] < 0.001
    assert learning_rate_share(0, 5, 0.0) == 1.0


@pytest.mark.parametrize(
    ("scores", "kept", "epochs"),
    [
        ([0.1, 0.3, 0.2, 0.3, 0.4], 1, 4),  # an equal score is no gain
        ([0.4, 0.3, 0.2], 0, 3),
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 5, 6),
    ],
)
def test_the_best_epoch_is_kept_and_patience_ends_the_rest(scores: list[float], kept: int, epochs: int) -> None:
    learner = Line(scores)
    after: list[dict[str, torch.Tensor]] = []
    score = learner.score

    def noting() -> float:
        after.append({name: tensor.clone() for name, tensor in learner.module.state_dict().items()})
        return score()

    learner.score = noting  # type: ignore[method-assign]
    bar: list[tuple[int, int]] = []
    trained = fit(learner, FitConfig(epochs=6, patience=2), progress=lambda *step: bar.append(step))
    assert len(trained.scores) == epochs == len(after)
    assert same(trained.weights, after[kept])
    assert not same(after[0], after[1])
    assert bar[0] == (1, 18)
    assert bar[-1] == (18, 18)
    assert bar == sorted(bar)


def test_torchs_own_generator_is_left_alone() -> None:
    learner = Line([0.1, 0.2])
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    fit(learner, FitConfig(epochs=2))
    assert torch.equal(torch.rand(3), expected)


def test_training_that_diverges_says_so() -> None:
    learner = Line([0.1])
    learner.inputs = learner.inputs * float("inf")
    with pytest.raises(ConfigError, match=r"diverged.*lower the learning rate"):
        fit(learner, FitConfig(epochs=1))


class Killed(Exception):
    """Stands for a kill."""


def kill_at(step: int) -> Any:
    def progress(done: int, total: int) -> None:
        if done == step:
            raise Killed

    return progress


@pytest.mark.parametrize("kills", [[1], [3], [4], [6], [8], [11], [2, 5, 10]])
def test_an_interrupted_fit_ends_where_an_uninterrupted_one_does(kills: list[int], tmp_path: Path) -> None:
    """Killed within the first epoch, at the end of one before its score, and after the best one."""
    config = FitConfig(epochs=5, patience=4)
    scores = [0.2, 0.4, 0.1, 0.3, 0.35]
    expected = fit(Line(scores), config)
    shelf = Shelf(tmp_path, MADE_FROM)
    for step in kills:
        torch.manual_seed(step)  # what the process drew before must not matter
        done = len(found.scores) if (found := shelf.find(CHECKPOINT)) else 0
        with pytest.raises(Killed):
            fit(Line(scores[done:]), config, shelf, kill_at(step))
    done = len(found.scores) if (found := shelf.find(CHECKPOINT)) else 0
    assert done == (max(kills) - 1) // 3
    torch.manual_seed(99)
    resumed = fit(Line(scores[done:]), config, shelf)
    assert resumed.scores == expected.scores == scores
    assert same(resumed.weights, expected.weights)


def test_a_shelf_returns_what_was_put_and_only_under_what_it_was_made_from(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "deep" / "peer", MADE_FROM)
    assert shelf.find(PEER) is None
    shelf.put(PEER, WEIGHTS, [0.5])
    shelf.put(PEER, {"a": WEIGHTS["a"] + 1}, [0.5, 0.25])
    found = shelf.find(PEER)
    assert found is not None
    assert same(found.weights, {"a": WEIGHTS["a"] + 1})
    assert found.scores == [0.5, 0.25]
    assert len(list(shelf.folder.iterdir())) == 2, "the replaced weights are gone"
    assert Shelf(shelf.folder, {**MADE_FROM, "config": {"seed": 1}}).find(PEER) is None
    shelf.drop(PEER)
    assert list(shelf.folder.iterdir()) == []


def test_a_kill_while_replacing_leaves_the_old_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf(tmp_path, MADE_FROM)
    shelf.put(PEER, WEIGHTS, [0.5])

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("l2d.baselines.peers.write_json", killed)
        shelf.put(PEER, {"a": torch.zeros(1)}, [0.6])
    found = shelf.find(PEER)
    assert found is not None
    assert same(found.weights, WEIGHTS)


def test_every_changed_byte_is_refused(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, MADE_FROM)
    shelf.put(PEER, WEIGHTS, [0.5])
    for file in sorted(tmp_path.iterdir()):
        whole = file.read_bytes()
        for place in range(0, len(whole), 7):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            with pytest.raises(ArtifactCorrupt, match=r"peer.*(delete|restore)"):
                shelf.find(PEER)
        file.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ArtifactCorrupt):
            shelf.find(PEER)
        file.write_bytes(whole)
    assert shelf.find(PEER) is not None
    next(tmp_path.glob("*.safetensors")).unlink()
    with pytest.raises(ArtifactCorrupt, match="trained again"):
        shelf.find(PEER)


def test_a_peer_is_trained_once_for_one_identity_and_config(tmp_path: Path) -> None:
    runs: list[str] = []

    def opened(data: str, seed: int) -> Trained:
        def train(shelf: Shelf | None) -> Trained:
            runs.append(f"{data}{seed}")
            assert shelf is not None
            shelf.put(CHECKPOINT, WEIGHTS, [])
            return Trained({"w": torch.full((2,), float(len(runs)))}, [0.25])

        return open_peer(tmp_path, {"data": data}, FitConfig(seed=seed), train)

    first = opened("a", 0)
    assert same(opened("a", 0).weights, first.weights)
    assert runs == ["a0"]
    opened("a", 1)
    opened("b", 1)
    opened("b", 1)
    opened("a", 0)
    assert runs == ["a0", "a1", "b1", "a0"]
    assert not list(tmp_path.glob(f"{CHECKPOINT}*")), "a finished peer needs no checkpoint"
    record = json.loads((tmp_path / "peer.json").read_text())
    assert record["made_from"]["identity"] == {"data": "a"}
    assert record["made_from"]["config"]["seed"] == 0
    assert record["scores"] == [0.25]


CONFIG = SASRecConfig(width=8, layers=1, heads=2, dropout=0.3, epochs=4, batch=10)


def small(world: ToyWorld, config: SASRecConfig = CONFIG, folder: Path | None = None, **more: Any) -> SASRec:
    splits = world.dataset.splits
    return SASRec.fit(splits.train, splits.valid, world.items, config, folder, **more)


def test_the_seed_decides_the_weights() -> None:
    world = toy_world()
    one = small(world)
    torch.manual_seed(99)
    again = small(world)
    other = small(world, SASRecConfig(**{**CONFIG.model_dump(), "seed": 1}))
    assert same(one.network.state_dict(), again.network.state_dict())
    assert one.scores == again.scores
    assert not same(one.network.state_dict(), other.network.state_dict())


def test_a_kept_peer_answers_as_the_trained_one_and_a_kill_changes_nothing(tmp_path: Path) -> None:
    world = toy_world()
    requests = Requests(world.requests().histories)
    expected = small(world)
    with pytest.raises(Killed):
        small(world, folder=tmp_path, identity={"data": "a"}, progress=kill_at(10))
    assert list(tmp_path.glob(f"{CHECKPOINT}*"))
    bar: list[int] = []
    resumed = small(world, folder=tmp_path, identity={"data": "a"}, progress=lambda done, _: bar.append(done))
    assert bar[0] > 1, "goes on where it was"
    bar.clear()
    loaded = small(world, folder=tmp_path, identity={"data": "a"}, progress=lambda done, _: bar.append(done))
    assert not bar, "a kept peer is not trained"
    for peer in (resumed, loaded):
        assert same(peer.network.state_dict(), expected.network.state_dict())
        assert peer.rank(requests, 10).scores.tobytes() == expected.rank(requests, 10).scores.tobytes()
    assert loaded.scores == expected.scores


def test_other_samples_under_the_same_identity_are_other_peers(tmp_path: Path) -> None:
    one, two = toy_world(), toy_world(walk=6)
    assert one.items == two.items
    small(one, folder=tmp_path)
    kept = small(two, folder=tmp_path)
    assert same(kept.network.state_dict(), small(two).network.state_dict())
