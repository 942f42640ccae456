"""The rows of a comparison from the decoders of a run, and the curves beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from l2d.backbone import machine
from l2d.compare import (
    Comparison,
    Contestant,
    Latent,
    Plan,
    Service,
    ask,
    compare,
    latency_by_length,
    quality_by_memory,
    quality_by_neighbours,
    sample,
    timed_histories,
)
from l2d.errors import ConfigError
from l2d.interactions import Examples
from l2d.recommender.making import Notice, StageProgress
from l2d.recommender.measuring import check_split
from l2d.recommender.opening import DECODERS
from l2d.run import versions

if TYPE_CHECKING:
    from l2d.recommender.facade import Recommender

LENGTH_TIMED = 20
"""Single requests per list length; a beam of a hundred takes seconds."""

CURVE_USERS = 2000
"""Examples behind each point of a curve over M or memory: the standard error of HR@10 is then about .007."""

BY_LENGTH = ("global", "vote", "beam")
"""Decoders whose latency is measured against the length of the list."""


def compare_run(
    run: Recommender,
    names: Sequence[str],
    plan: Plan,
    *,
    seeds: int,
    curves: bool,
    extra: Sequence[Contestant],
    progress: StageProgress,
    notice: Notice,
) -> Comparison:
    """See `Recommender.compare`."""
    if seeds < 1:
        raise ConfigError("too few seeds", got=seeds, expected="at least 1")
    check_split(run, plan.split, names)
    contestants = [*(_contestant(run, name, plan.seed, seeds, progress) for name in dict.fromkeys(names)), *extra]
    examples = run.dataset.splits[plan.split]
    found = compare(
        contestants, examples, run.catalog, run.train_evidence.popularity, run.prompts, run.thinker, plan,
        progress=progress, notice=notice,
    )  # fmt: skip
    drawn = _curves(run, contestants, examples, plan, progress) if curves else {}
    return replace(found, curves=drawn, run=_described(run, contestants))


def _contestant(run: Recommender, name: str, seed: int, seeds: int, progress: StageProgress) -> Contestant:
    first = run.decoder(name, seed=seed, progress=progress)
    kind = DECODERS[name]
    more = range(seed + 1, seed + seeds) if kind == "peer" else ()
    return Contestant(name, kind, first, [run.decoder(name, seed=other, progress=progress) for other in more])


def _curves(
    run: Recommender, contestants: Sequence[Contestant], examples: Examples, plan: Plan, progress: StageProgress
) -> dict[str, Any]:
    chosen = {one.name: one.decoder for one in contestants}
    found: dict[str, Any] = {}
    if chosen.keys() & {"global", "local", "vote"}:
        some = examples.take(sample(examples, CURVE_USERS, plan.seed))
        requests = ask(some, run.prompts, run.thinker, think=True, exclude_seen=plan.exclude_seen)
        latent = Latent(run.entries, run.item_vectors, run.constants, requests, some.target, run.catalog)
        found["neighbours"] = quality_by_neighbours(latent, progress=partial(progress, "curve over M"))
        found["memory"] = quality_by_memory(latent, seed=plan.seed, progress=partial(progress, "curve over memory"))
    timed = {
        name: Service(chosen[name], run.prompts, run.thinker, exclude_seen=plan.exclude_seen)
        for name in BY_LENGTH
        if name in chosen
    }
    if timed and plan.timed:
        histories = timed_histories(examples, plan.seed, min(LENGTH_TIMED, plan.timed))
        found["length"] = latency_by_length(timed, histories, progress=partial(progress, "curve over k"))
    return found


def _described(run: Recommender, contestants: Sequence[Contestant]) -> dict[str, Any]:
    """What was compared, what validation chose for it, and on which machine."""
    backbone = {key: run.manifest["backbone"][key] for key in ("name", "revision", "width", "dtype", "attention")}
    backbone["parameters"] = sum(weights.numel() for weights in run.backbone.model.parameters())
    fitted = {
        one.name: {key: getattr(one.decoder, key) for key in ("gamma", "alpha", "neighbours", "temperature")
                   if hasattr(one.decoder, key)}
        for one in contestants
    }  # fmt: skip
    return {
        "name": run.path.name,
        "backbone": backbone,
        "template": run.prompts.template.name,
        "items": len(run.catalog),
        "entries": len(run.entries),
        "fitted": {name: constants for name, constants in fitted.items() if constants},
        "seed": run.manifest["tuning"]["seed"] if run.manifest["tuning"] else None,
        "date": datetime.now(UTC).date().isoformat(),
        "device": str(run.backbone.device),
        "engine": run.engine.name,
        "machine": machine(),
        "versions": versions(),
    }
