"""Tuning over packs against one sample at a time; the plan; dropout, adapters, early stopping, resuming."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import TrainingArguments

from families import PACKED, TITLES, open_family
from l2d.backbone import Backbone, probe_packing
from l2d.backbone.masks import PackedBatch
from l2d.catalog import Catalog
from l2d.errors import ConfigError, InternalError
from l2d.interactions import Examples, Interactions, chains, examples_of
from l2d.prompts import COMPACT, INSTRUCT, Prompts, Template
from l2d.tuning import (
    PackTrainer,
    Sample,
    TuningConfig,
    TuningPlan,
    collate,
    newest_complete,
    state_dropout,
    tree_loss,
    tune,
)
from l2d.tuning.trainer import PlannedBatches

CATALOG = Catalog.from_titles(TITLES)
PLAIN = TuningConfig(
    epochs=2,
    learning_rate=1e-3,
    tokens_per_batch=120,
    pack_tokens=64,
    window=4,
    dropout=0.0,
    precision="float32",
    evaluations=0,
)


def log(users: int = 12, seed: int = 0) -> Examples:
    """Histories of two to ten items, some of them equal."""
    generator = np.random.default_rng(seed)
    rows = [generator.integers(0, len(TITLES), size=size) for size in generator.integers(2, 11, size=users)]
    rows[-1] = rows[0]
    who = np.repeat(np.arange(users, dtype=np.int32), [len(part) for part in rows])
    row = np.concatenate(rows).astype(np.int32)
    names = tuple(f"user {index}" for index in range(users))
    return examples_of(Interactions(names, who, row, np.arange(len(row), dtype=np.int64)), 6)


def plan_of(backbone: Backbone, template: Template = COMPACT, **changes: Any) -> TuningPlan:
    prompts = Prompts.compile(template, backbone.tokenizer, CATALOG, max_tokens=200)
    options = {"tokens": 120, "pack_tokens": 64, "window": 4, "seed": 0, **changes}
    return TuningPlan(log(), prompts, **options)


def rows(*values: int) -> NDArray[np.int32]:
    return np.array(values, dtype=np.int32)


# TITLES[1] and [2] are "... two" and "... one and a half"; [0] is "... one": a prefix of [2].
SAMPLES = [
    Sample(rows(3, 4), 0),
    Sample(rows(3, 4), 2),
    Sample(rows(3, 4), 2),
    Sample(rows(3, 4, 2), 0),
    Sample(rows(3, 4, 0), 5),
    Sample(rows(), 3),
    Sample(rows(3), 4),
    Sample(rows(9, 20, 3, 4, 11, 17), 30),
]


def weighted_tokens(samples: list[Sample], prompts: Prompts) -> int:
    return sum(len(prompts.answer(sample.target)) for sample in samples)


def loss_alone(model: nn.Module, samples: list[Sample], prompts: Prompts, divisor: int) -> torch.Tensor:
    """Sum over the answers' tokens of the plain model, one sample at a time."""
    total = torch.zeros(())
    for sample in samples:
        prompt, answer = prompts.prompt(sample.history), prompts.answer(sample.target)
        ids = torch.from_numpy(np.concatenate([prompt, answer]).astype(np.int64))[None]
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, len(prompt) - 1 : -1]
        total = total - logits.log_softmax(-1)[torch.arange(len(answer)), ids[0, len(prompt) :]].sum()
    return total / divisor


def gradients(model: nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float = 1e-5) -> None:
    """Equal up to rounding, relative to the largest value of all."""
    assert found.keys() == expected.keys()
    scale = max(value.abs().max().item() for value in expected.values())
    for name, value in expected.items():
        assert (found[name] - value).abs().max().item() <= tolerance * scale, name


@pytest.mark.parametrize("template", [COMPACT, INSTRUCT], ids=lambda template: template.name)
@pytest.mark.parametrize("family", PACKED)
def test_loss_and_gradient_are_those_of_one_sample_at_a_time(family: str, template: Template, tmp_path: Path) -> None:
    backbone = open_family(family, tmp_path)
    probe = probe_packing(backbone, longest=256)
    assert probe.form is not None
    plan = plan_of(backbone, template, pack_tokens=60 if template is COMPACT else 200)
    total = weighted_tokens(SAMPLES, plan.prompts)
    packs = plan.packs(SAMPLES)
    batch = PackedBatch(**collate([packs]))
    assert int(batch.weight.sum()) == total
    assert len(packs) > 1, "loss and gradient add up over packs"
    assert sum(map(len, packs)) < 0.7 * sum(len(plan.prompts.prompt(s.history)) for s in SAMPLES), "prompts are shared"
    found = tree_loss(backbone, batch, probe.form) / total
    expected = loss_alone(backbone.model, SAMPLES, plan.prompts, total)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    close(gradients(backbone.model, found), gradients(backbone.model, expected))


@pytest.mark.parametrize("template", [COMPACT, INSTRUCT], ids=lambda template: template.name)
@pytest.mark.parametrize("family", ["lfm2", "gpt2"])
def test_lines_without_branches_have_the_same_loss_and_gradient(
    family: str, template: Template, tmp_path: Path
) -> None:
    backbone = open_family(family, tmp_path)
    plan = plan_of(backbone, template, branching=False)
    total = weighted_tokens(SAMPLES, plan.prompts)
    batch = PackedBatch(**collate([plan.lines(SAMPLES)]))
    assert len(batch.ids) == len(SAMPLES), "these samples branch, so each has a line of its own"
    found = tree_loss(backbone, batch, None) / total
    expected = loss_alone(backbone.model, SAMPLES, plan.prompts, total)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    close(gradients(backbone.model, found), gradients(backbone.model, expected))


def test_samples_that_extend_each_other_share_a_line(tmp_path: Path) -> None:
    backbone = open_family("lfm2", tmp_path)
    plan = plan_of(backbone, COMPACT, branching=False)
    growing = [Sample(rows(3, 4, 9)[:n], int(rows(4, 9, 20)[n - 1])) for n in (1, 2, 3)]
    (line,) = plan.lines(growing)
    assert len(line) == len(plan.prompts.prompt(rows(3, 4, 9))) + len(plan.prompts.answer(20))
    assert line.weight.sum() == weighted_tokens(growing, plan.prompts)


class Recording(TuningPlan):
    """A plan that also hands out the samples of a batch."""

    def samples(self, index: int) -> list[Sample]:
        kept: list[Sample] = []
        self.packs = lambda samples: kept.extend(samples) or []  # type: ignore[method-assign,assignment,func-returns-value]
        try:
            self.batch(index)
        finally:
            del self.packs
        return kept

    def epoch(self, number: int) -> list[Sample]:
        first = number * self.batches_per_epoch
        return [sample for index in range(first, first + self.batches_per_epoch) for sample in self.samples(index)]


def recording(tokens: int = 120, window: int = 4, seed: int = 0, examples: Examples | None = None) -> Recording:
    from families import tokenizer

    prompts = Prompts.compile(COMPACT, tokenizer(), CATALOG, max_tokens=200)
    return Recording(examples or log(), prompts, tokens=tokens, pack_tokens=64, window=window, seed=seed)


@pytest.mark.parametrize(("batches", "accumulation"), [(2, 2), (3, 2), (2, 1)])
def test_accumulated_packs_make_one_step_of_all_their_samples(batches: int, accumulation: int, tmp_path: Path) -> None:
    """SGD steps of the trainer against steps by hand; the last step may hold fewer batches than the others."""
    backbone, twin = (open_family("qwen3", tmp_path / name) for name in ("one", "two"))
    probe = probe_packing(backbone, longest=256)
    assert probe.form is not None
    prompts = Prompts.compile(COMPACT, backbone.tokenizer, CATALOG, max_tokens=200)
    plan = Recording(log(), prompts, tokens=400, pack_tokens=64, window=4, seed=0)
    plan.batches_per_epoch = batches
    sizes = [weighted_tokens(plan.samples(index), prompts) for index in range(batches)]
    assert len(set(sizes)) == batches, "unequal batches, or a mean of means would do"
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "out"),
        num_train_epochs=1,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=accumulation,
        optim="sgd",
        learning_rate=0.05,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        use_cpu=True,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    trainer = PackTrainer(
        model=backbone.model,
        args=arguments,
        train_dataset=PlannedBatches(plan, 1),
        data_collator=collate,
        backbone=backbone,
        form=probe.form,
        score=None,
    )
    start = {name: weight.detach().clone() for name, weight in backbone.model.named_parameters()}
    trainer.train()
    for first in range(0, batches, accumulation):
        step = [s for index in range(first, min(first + accumulation, batches)) for s in plan.samples(index)]
        slope = gradients(twin.model, loss_alone(twin.model, step, prompts, weighted_tokens(step, prompts)))
        with torch.no_grad():
            for name, weight in twin.model.named_parameters():
                weight -= 0.05 * slope[name]
    moved = {name: weight.detach() - start[name] for name, weight in backbone.model.named_parameters()}
    by_hand = {name: weight.detach() - start[name] for name, weight in twin.model.named_parameters()}
    close(moved, by_hand, 3e-5)  # the difference of two float32 weights is rounded more than a gradient


def pairs(samples: list[Sample]) -> Counter[tuple[tuple[int, ...], int]]:
    return Counter((tuple(sample.history.tolist()), sample.target) for sample in samples)


@pytest.mark.parametrize("tokens", [16, 60, 120, 100_000])
@pytest.mark.parametrize("window", [2, 4, 12])
def test_an_epoch_of_windows_holds_every_target_once(window: int, tokens: int) -> None:
    plan = recording(tokens, window)
    sequences = [chain.tolist() for chain in chains(plan.examples)]
    every = Counter(row for chain in sequences for row in chain)
    seen = []
    for epoch in range(3):
        samples = plan.epoch(epoch)
        assert Counter(sample.target for sample in samples) == every
        first = epoch * plan.batches_per_epoch
        assert all(plan.samples(first + place) for place in range(plan.batches_per_epoch)), "no batch is empty"
        for sample in samples:
            stretch = [*sample.history.tolist(), sample.target]
            assert len(stretch) <= window
            assert any(stretch == chain[i : i + len(stretch)] for chain in sequences for i in range(len(chain)))
        seen.append(pairs(samples))
    assert seen[0] != seen[1] != seen[2], "the offsets are drawn anew"


@pytest.mark.parametrize("tokens", [16, 60, 120, 100_000])
def test_an_epoch_of_given_histories_holds_the_given_samples(tokens: int) -> None:
    plan = recording(tokens, window=0)
    given = pairs([Sample(history, target) for history, target in plan.examples])
    assert pairs(plan.epoch(0)) == given == pairs(plan.epoch(1))
    assert [pairs(plan.samples(i)) for i in range(3)] != [
        pairs(plan.samples(plan.batches_per_epoch + i)) for i in range(3)
    ] or plan.batches_per_epoch == 1


@pytest.mark.parametrize("window", [0, 4])
def test_batches_are_about_as_large_as_asked(window: int) -> None:
    plan = TuningPlan(log(users=80), recording().prompts, tokens=150, pack_tokens=64, window=window, seed=0)
    nodes = [sum(len(tree) for tree in plan.batch(index)) for index in range(plan.batches_per_epoch)]
    assert plan.batches_per_epoch > 8
    assert 0.7 * 150 <= np.mean(nodes) <= 1.3 * 150
    assert min(nodes) > 0


def test_a_batch_depends_on_seed_and_index_alone() -> None:
    def tokens(plan: TuningPlan, index: int) -> list[list[int]]:
        return [tree.ids.tolist() for tree in plan.batch(index)]

    for window in (0, 4):
        one, other, seeded = recording(window=window), recording(window=window), recording(window=window, seed=1)
        indices = list(range(3 * one.batches_per_epoch))
        forward = [tokens(one, index) for index in indices]
        assert [tokens(other, index) for index in indices[::-1]][::-1] == forward
        assert [tokens(seeded, index) for index in indices] != forward


def test_an_impossible_window_is_refused() -> None:
    for window in (1, -2):
        with pytest.raises(ConfigError, match="window"):
            recording(window=window)


def test_dropout_acts_in_training_alone_and_is_gone_afterwards(tmp_path: Path) -> None:
    backbone = open_family("llama", tmp_path)
    model, ids = backbone.model, torch.arange(40)[None]
    plain = model.base_model(input_ids=ids).last_hidden_state
    with state_dropout(model, 0.5):
        assert torch.equal(model.base_model(input_ids=ids).last_hidden_state, plain)
        model.train()
        embedded = model.get_input_embeddings()(ids)
        states = model.base_model(input_ids=ids).last_hidden_state
        for values in (embedded, states):
            assert 0.4 < (values == 0).float().mean().item() < 0.6
        assert not torch.equal(states, model.base_model(input_ids=ids).last_hidden_state)
    assert torch.equal(model.base_model(input_ids=ids).last_hidden_state, plain)


def run(
    folder: Path, config: TuningConfig = PLAIN, *, family: str = "qwen3", **options: Any
) -> tuple[Backbone, dict[str, torch.Tensor]]:
    """Tunes a fresh tiny model; returns it and its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    backbone = open_family(family, folder / "base")
    probe = probe_packing(backbone, longest=256)
    branching = probe.form is not None
    plan = plan_of(
        backbone, tokens=config.tokens_per_batch, window=config.window, seed=config.seed, branching=branching
    )
    tune(backbone, plan, config, folder, probe=probe, **options)
    return backbone, weights(backbone)


def weights(backbone: Backbone) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in backbone.model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_tuning_learns_and_leaves_a_whole_folder(tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    before = weights(open_family("qwen3", tmp_path / "before"))
    config = PLAIN.model_copy(update={"epochs": 6, "learning_rate": 5e-3})
    backbone, after = run(tmp_path, config, progress=lambda done, total: steps.append((done, total)))
    assert not backbone.model.training
    assert not same(before, after)
    plan = plan_of(backbone)
    total = 6 * plan.batches_per_epoch
    assert steps == [(step, total) for step in range(1, total + 1)]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < 0.9 * losses[0]
    assert lines[-1]["step"] == total
    assert lines[-1]["epoch"] == pytest.approx(6)
    newest = newest_complete(tmp_path / "checkpoints")
    assert newest is not None
    assert newest.name == f"checkpoint-{total}"


def test_a_family_that_cannot_be_packed_is_tuned_on_lines(tmp_path: Path) -> None:
    config = PLAIN.model_copy(update={"epochs": 6, "learning_rate": 5e-3})
    run(tmp_path, config, family="lfm2")
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < 0.9 * losses[0]


def test_branching_packs_never_reach_a_family_that_cannot_be_packed(tmp_path: Path) -> None:
    backbone = open_family("lfm2", tmp_path / "base")
    with pytest.raises(InternalError, match="without branches"):
        tune(backbone, plan_of(backbone), PLAIN, tmp_path, probe=probe_packing(backbone, longest=256))


def test_an_adapter_alone_is_tuned_and_merged(tmp_path: Path) -> None:
    config = PLAIN.model_copy(update={"lora": True, "lora_rank": 4, "lora_dropout": 0.0, "learning_rate": 1e-2})
    _, after = run(tmp_path, config)
    before = weights(Backbone.open(tmp_path / "base", dtype="float32", device="cpu"))
    assert after.keys() == before.keys(), "nothing of the adapter is left in the model"
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed == {name for name in after if "_proj" in name}
    reopened = Backbone.open(tmp_path / "base", adapter=tmp_path / "adapter", dtype="float32", device="cpu")
    close(weights(reopened), after, 1e-6)


def scripted(values: dict[int, float], kept: dict[int, dict[str, torch.Tensor]]) -> dict[str, Any]:
    """A score that is looked up by the step, and keeps the weights that it was asked about."""
    step = [0]

    def score(backbone: Backbone) -> float:
        assert not backbone.model.training
        kept[step[0]] = weights(backbone)
        return values[step[0]]

    def progress(done: int, total: int) -> None:
        step[0] = done

    return {"score": score, "progress": progress}


JUDGED = PLAIN.model_copy(update={"epochs": 4, "evaluations": 8, "patience": 2, "dropout": 0.3})


def script() -> dict[int, float]:
    """Figures by step: up, the best, then down."""
    figures = [0.1, 0.4, 0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]
    steps = 4 * recording().batches_per_epoch
    every = steps // 8
    return {(place + 1) * every: figure for place, figure in enumerate(figures)}


def test_tuning_stops_early_and_keeps_the_best_weights(tmp_path: Path) -> None:
    kept: dict[int, dict[str, torch.Tensor]] = {}
    notices: list[str] = []
    _, final = run(tmp_path, JUDGED, **scripted(script(), kept), notice=notices.append)
    steps = list(script())
    assert list(kept) == steps[:4], "two measurements without a gain end the run"
    assert same(final, kept[steps[1]])
    assert not same(final, kept[steps[3]])
    assert [line for line in notices if "0.4000" in line]


@pytest.mark.parametrize("stop", [2, 3])
def test_an_interrupted_run_ends_as_one_that_was_not(stop: int, tmp_path: Path) -> None:
    """Same weights, dropout included, and the same patience: it would stop later if it began to count anew."""
    whole: dict[int, dict[str, torch.Tensor]] = {}
    _, expected = run(tmp_path / "whole", JUDGED, **scripted(script(), whole))
    steps, parts = list(script()), dict[int, dict[str, torch.Tensor]]()
    options = scripted(script(), parts)
    judge = options["score"]

    def interrupted(backbone: Backbone) -> float:
        if len(parts) == stop:
            raise KeyboardInterrupt
        return float(judge(backbone))

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", JUDGED, **{**options, "score": interrupted})
    notices: list[str] = []
    _, found = run(tmp_path / "parts", JUDGED, **scripted(script(), parts), resume=True, notice=notices.append)
    assert notices[0] == f"resuming from checkpoint-{steps[stop - 1]}"
    assert list(parts) == list(whole)
    assert all(same(parts[step], whole[step]) for step in whole)
    assert same(found, expected)
    both = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("whole", "parts")]
    logged = [[(line["step"], sorted(line)) for line in map(json.loads, lines)] for lines in both]
    assert logged[0] == logged[1], "no line is missing and none is there twice"


def test_a_new_run_forgets_an_older_ones_checkpoints(tmp_path: Path) -> None:
    run(tmp_path, PLAIN.model_copy(update={"epochs": 4}))
    _, again = run(tmp_path, PLAIN)
    names = {int(path.name.split("-")[1]) for path in (tmp_path / "checkpoints").iterdir()}
    assert max(names) == 2 * recording().batches_per_epoch
    _, fresh = run(tmp_path / "fresh", PLAIN)
    assert same(again, fresh)


def test_a_run_that_measures_nothing_saves_on_its_way(tmp_path: Path) -> None:
    run(tmp_path, PLAIN)
    assert len(list((tmp_path / "checkpoints").glob("*/complete.json"))) == 3


def test_a_complete_run_resumes_to_itself(tmp_path: Path) -> None:
    _, first = run(tmp_path, PLAIN)
    steps: list[int] = []
    _, second = run(tmp_path, PLAIN, resume=True, progress=lambda done, total: steps.append(done))
    assert same(first, second)
    assert steps == []


def test_logits_are_made_where_an_answer_follows_and_nowhere_else(tmp_path: Path) -> None:
    backbone = open_family("qwen3", tmp_path)
    plan = plan_of(backbone, INSTRUCT, pack_tokens=90)
    batch = PackedBatch(**collate([plan.packs(SAMPLES)]))
    assert len(batch.ids) > 1
    shapes = []
    head = backbone.model.get_output_embeddings()
    hook = head.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape[:-1])))
    tree_loss(backbone, batch, probe_packing(backbone, longest=256).form)
    hook.remove()
    answered = {(line, int(batch.parent[line, node])) for line, node in torch.nonzero(batch.weight).tolist()}
    assert shapes == [(1, len(answered))]
