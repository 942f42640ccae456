"""How a run comes about: tuned here, or adopted from elsewhere. Each leaves a complete run directory."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from l2d.artifacts import atomic_folder, refuse_existing, write_json
from l2d.backbone import SCRATCH_SIZES, Backbone, PackProbe, probe_packing, resolve_device, scratch_backbone
from l2d.decode import Global
from l2d.decode.fit import gains
from l2d.errors import ConfigError
from l2d.interactions import Dataset, Examples
from l2d.memory import Entries, aggregate
from l2d.prompts import Prompts, resolve_template
from l2d.ranking import Requests
from l2d.run import Run, check_same
from l2d.thoughts import TorchThinker
from l2d.tuning import TuningConfig, TuningPlan, is_main, tune, wait_for_all

Notice = Callable[[str], None]
StageProgress = Callable[[str, int, int], None]

LONGEST_PROMPT = 1024
"""Most tokens of prompt + answer, where the backbone's context allows as many."""

SCORED_TRAIN, SCORED_VALID = 10_000, 1_200
"""Examples in the sampled memory and of the validation split that early stopping looks at, about."""

ADOPT_SAMPLES = 200
"""Validation samples whose answers an adopted model has to find likely."""


def silent(*_: object) -> None:
    """Reports to nobody."""


def tune_run(
    dataset: Dataset,
    run: Run,
    name: str,
    *,
    template: str | None,
    config: TuningConfig,
    max_title_tokens: int,
    revision: str | None,
    device: str,
    dtype: str,
    resume: bool,
    overwrite: bool,
    progress: StageProgress,
    notice: Notice,
) -> None:
    """Tunes a backbone on the training split and writes everything but the memory; in several processes, once."""
    if not is_main():
        progress, notice = silent, silent
    elif not resume:
        refuse_existing(run.path, overwrite=overwrite)
    backbone = _open(dataset, name, revision=revision, device=device, dtype=dtype, seed=config.seed)
    prompts = _compile(
        dataset, backbone, template or ("compact" if name in SCRATCH_SIZES else "instruct"), max_title_tokens
    )
    probe = probe_packing(backbone, longest=prompts.max_tokens)
    notice(_introduction(backbone, probe))
    asked = _asked(
        "tune", dataset, config, backbone=name, template=template, revision=revision, max_title_tokens=max_title_tokens
    )
    if is_main():
        _begin(run, asked, dataset, resume=resume, overwrite=overwrite)
    wait_for_all()
    plan = TuningPlan(
        dataset.splits.train,
        prompts,
        config.tokens_per_batch,
        config.pack_tokens,
        config.window,
        config.seed,
        branching=probe.form is not None,
    )
    tune(
        backbone,
        plan,
        config,
        run.path,
        probe=probe,
        score=ranking_score(dataset, prompts, probe, config.seed),
        resume=resume,
        progress=partial(progress, "tuning"),
        notice=notice,
    )
    if is_main():
        adapter = run.path / "adapter" if config.lora else None
        if adapter is not None:
            # Opened again, so that memory and requests see what a later load will: merged in fp32, then cast.
            backbone = Backbone.open(name, adapter=adapter, revision=revision, device=device, dtype=dtype)
        _finish(run, asked, dataset, backbone, prompts, probe, name, adapter=adapter)
        shutil.rmtree(run.path / "checkpoints", ignore_errors=True)
        shutil.rmtree(run.path / "adapter", ignore_errors=True)
    wait_for_all()


def adopt_run(
    dataset: Dataset,
    run: Run,
    name: str,
    *,
    template: str,
    adapter: Path | None,
    max_title_tokens: int,
    revision: str | None,
    device: str,
    dtype: str,
    overwrite: bool,
    notice: Notice,
) -> None:
    """Takes a model that was tuned elsewhere; nothing is trained."""
    if name in SCRATCH_SIZES:
        raise ConfigError("a scratch backbone has nothing to adopt", got=name, cure="use `l2d tune` for it")
    refuse_existing(run.path, overwrite=overwrite)
    backbone = Backbone.open(name, adapter=adapter, revision=revision, dtype=dtype, device=device)
    prompts = _compile(dataset, backbone, template, max_title_tokens)
    probe = probe_packing(backbone, longest=prompts.max_tokens)
    notice(_introduction(backbone, probe))
    asked = _asked(
        "adopt", dataset, None, backbone=name, template=template, revision=revision, max_title_tokens=max_title_tokens
    )
    _begin(run, asked, dataset, resume=False, overwrite=overwrite)
    likely, shuffled = answer_likelihood(dataset, backbone, prompts)
    samples = min(ADOPT_SAMPLES, len(dataset.splits.valid))
    notice(f"log-likelihood of an answer, mean of {samples} validation samples: {likely:.2f} nats")
    notice(f"the same with histories shuffled between samples: {shuffled:.2f} nats")
    if likely <= shuffled:
        notice(
            "warning: shuffled histories explain the answers as well as the users' own: "
            "this is probably not the prompt that the model was tuned with"
        )
    _finish(run, asked, dataset, backbone, prompts, probe, name, adapter=adapter)


def _asked(made_by: str, dataset: Dataset, config: TuningConfig | None, **options: Any) -> dict[str, Any]:
    """What a run was asked to be: the part of the manifest that a resumed run has to match."""
    tuning = None if config is None else config.model_dump()
    return {"made_by": made_by, "asked": options, "tuning": tuning, "data": dataset.fingerprint}


def _introduction(backbone: Backbone, probe: PackProbe) -> str:
    dtype = str(backbone.dtype).removeprefix("torch.")
    return f"{backbone.name}: width {backbone.width}, {dtype} on {backbone.device}; {probe.reason}"


def _begin(run: Run, asked: dict[str, Any], dataset: Dataset, *, resume: bool, overwrite: bool) -> None:
    """Claims the folder, once nothing can be refused any more; or checks that it was begun with the same options."""
    if resume and run.manifest_file.is_file():
        there = run.read_manifest(state="tuning")
        for what, key in (("backbone or template", "asked"), ("tuning configuration", "tuning"), ("data set", "data")):
            check_same(
                what,
                there[key],
                asked[key],
                cure="resume with the options it was begun with, or start anew with --overwrite",
            )
        return
    run.claim(overwrite=overwrite)
    run.write_manifest({**asked, "state": "tuning"})
    with atomic_folder(run.data, overwrite=True) as folder:
        dataset.save(folder)


def _open(dataset: Dataset, name: str, *, revision: str | None, device: str, dtype: str, seed: int) -> Backbone:
    if name in SCRATCH_SIZES:
        # Titles of items that appear only after the cut must not shape the vocabulary.
        titles = [dataset.catalog.titles[row] for row in dataset.train_rows]
        return scratch_backbone(name, titles, seed=seed, device=resolve_device(device))
    if name.startswith("scratch:"):
        raise ConfigError("unknown scratch backbone", got=name, expected=", ".join(SCRATCH_SIZES))
    return Backbone.open(name, revision=revision, device=device, dtype=dtype)


def _compile(dataset: Dataset, backbone: Backbone, template: str, max_title_tokens: int) -> Prompts:
    return Prompts.compile(
        resolve_template(template, backbone.tokenizer),
        backbone.tokenizer,
        dataset.catalog,
        max_tokens=min(LONGEST_PROMPT, backbone.context),
        max_title_tokens=max_title_tokens,
    )


def _finish(
    run: Run,
    asked: dict[str, Any],
    dataset: Dataset,
    backbone: Backbone,
    prompts: Prompts,
    probe: PackProbe,
    name: str,
    *,
    adapter: Path | None,
) -> None:
    """Writes backbone and prompt, then the manifest, which makes the run count."""
    by_name = (
        name not in SCRATCH_SIZES and not Path(name).exists() and (asked["made_by"] == "adopt" or adapter is not None)
    )
    with atomic_folder(run.backbone, overwrite=True) as folder:
        if by_name:
            write_json(folder / "base.json", {"name": name, "revision": backbone.revision})
            if adapter is not None:
                shutil.copytree(adapter, folder / "adapter")
        else:
            backbone.save(folder)
    prompts.save(run.prompt)
    described = {
        "name": name,
        "revision": backbone.revision,
        "fingerprint": backbone.fingerprint,
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "attention": backbone.attention,
        "width": backbone.width,
        "form": probe.form,
        "probe": probe.reason,
    }
    run.finish({**asked, "backbone": described, "prompt": prompts.fingerprint, "catalog": dataset.catalog.fingerprint})


def ranking_score(dataset: Dataset, prompts: Prompts, probe: PackProbe, seed: int) -> Callable[[Backbone], float]:
    """NDCG@10 of global on sampled validation users, from a memory of sampled training users.

    Whole users are drawn and not single examples: one user's prompts share their beginnings and are thought at less
    than half the price.
    """
    generator = np.random.default_rng([seed, 7])
    train = sample_users(dataset.splits.train, SCORED_TRAIN, generator)
    valid = sample_users(dataset.splits.valid, SCORED_VALID, generator)
    known, wanted = ([prompts.prompt(history) for history in part.histories()] for part in (train, valid))

    def score(backbone: Backbone) -> float:
        thinker = TorchThinker(backbone, probe, opening=prompts.opening)
        entries = Entries(
            thinker.think(known),
            train.target,
            train.user,
            train.timestamp,
            np.arange(len(train)),
            train.interactions.user_ids,
        )
        requests = Requests(valid.histories(), thinker.think(wanted))
        rankings = Global(aggregate(entries, len(dataset.catalog))).rank(requests, 10)
        return float(gains(rankings, valid.target).mean())

    return score


def sample_users(examples: Examples, most: int, generator: np.random.Generator) -> Examples:
    """All examples of randomly drawn users, about `most` of them, in their given order."""
    if len(examples) <= most:
        return examples
    users = generator.permutation(np.unique(examples.user))
    per_user = np.bincount(examples.user, minlength=int(users.max()) + 1)[users]
    drawn = users[: int(np.searchsorted(np.cumsum(per_user), most)) + 1]
    return examples.take(np.flatnonzero(np.isin(examples.user, drawn)))


@torch.inference_mode()
def answer_likelihood(dataset: Dataset, backbone: Backbone, prompts: Prompts, seed: int = 0) -> tuple[float, float]:
    """Mean log-likelihood of validation answers under their own histories, and under others' histories.

    Returns:
        Nats per answer, summed over its tokens: (own, shuffled).
    """
    generator = np.random.default_rng(seed)
    valid = dataset.splits.valid
    chosen = generator.permutation(len(valid))[:ADOPT_SAMPLES]
    histories, targets = [valid.history(int(index)) for index in chosen], valid.target[chosen]
    own = np.mean([_log_likelihood(backbone, prompts, h, int(t)) for h, t in zip(histories, targets, strict=True)])
    others = np.roll(np.arange(len(chosen)), 1)
    strange = np.mean(
        [_log_likelihood(backbone, prompts, histories[o], int(t)) for o, t in zip(others, targets, strict=True)]
    )
    return float(own), float(strange)


def _log_likelihood(backbone: Backbone, prompts: Prompts, history: NDArray[np.int32], target: int) -> float:
    prompt, answer = prompts.prompt(history), prompts.answer(target)
    ids = torch.from_numpy(np.concatenate([prompt, answer]).astype(np.int64)).to(backbone.device)
    logits = backbone.model(input_ids=ids[None], use_cache=False).logits[0, len(prompt) - 1 : -1].float()
    return float(logits.log_softmax(dim=-1).gather(1, ids[len(prompt) :, None]).sum())
