"""Chooses the constants of auto or recall on validation, and says what each of their ingredients gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2d.decode.auto import Materials, Recipe, Seen
from l2d.errors import ConfigError
from l2d.interactions import UNKNOWN_TIME
from l2d.ranking import Requests, Rows

CELLS = 36_000_000
"""Scores held at once by each kind of evidence: 144 MB. Larger catalogues are calibrated on fewer requests."""

FEWEST = 500
"""Requests that are kept in any case."""

CUT = 10
"""Constants are chosen by NDCG at this list length."""

LONG = 50
"""List length at which newcomers are looked for."""

GRID: Mapping[str, tuple[float | None, ...]] = {
    "thought": (0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95),
    "repeat": (0.01, 0.1, 0.3, 1.0, 3.0),
    "repeat_last": (0.01, 0.1, 0.3, 1.0, 3.0),
    "half_life": (None, 30.0, 60.0, 120.0, 240.0),
    "prior": (0.0, 0.2, 0.4, 0.6, 0.8),
    "temperature": (0.05, 0.07, 0.1, 0.14, 0.2, 0.28),
    "shrinkage": (None, 0.3, 1.0, 3.0, 10.0),
    "text": (0.0, 1.0, 2.0, 4.0),
    "backwards": (0.0, 0.25, 0.5, 1.0),
    "damping": (0.0, 0.25, 0.5, 0.75),
    "fading": (0.5, 0.75, 1.0),
}
"""What is tried for each constant, in this order; `newcomer` is chosen afterwards."""

COARSE: Mapping[str, tuple[float | None, ...]] = {
    "half_life": (None, 60.0, 240.0),
    "prior": (0.2, 0.4, 0.6),
    "thought": (0.2, 0.5, 0.8),
}
"""Tried in every combination before the ascent, which else stops on the wrong hill: these pull at the same rope."""

ROUNDS = 4
"""Most times that every constant is tried in turn; a round without a change is the last."""

NEWCOMERS = (0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
"""Entries given to items without any, as multiples of the known items' mean."""

NOWHERE = np.iinfo(np.int64).max
"""Place of a target that is in no list."""

WITHHELD = 0.02
"""Share of the known items that is withheld, to see what newcomers find and what they cost."""

NEWCOMER_COST = 0.01
"""Share of NDCG@10 that the other targets may lose to them."""

WITHOUT: Mapping[str, Mapping[str, float | None]] = {
    "thought": {"thought": 0.0},
    "counts": {"thought": 1.0},
    "learned metric": {"shrinkage": None},
    "prior": {"prior": 0.0},
    "fading of old entries": {"half_life": None},
    "titles in item vectors": {"text": 0.0},
    "items without entries": {"newcomer": 0.0},
    "counts backwards": {"backwards": 0.0},
    "damped counts": {"damping": 0.0},
    "repeated items": {"repeat": 1.0, "repeat_last": 1.0},
}
"""Each ingredient, and the constants that take it out."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Calibration:
    """What validation chose for auto or recall.

    Args:
        recipe: the constants.
        requests: validation requests it was chosen on.
        ndcg: NDCG@10 on them: of `auto` (or `recall`), of the same without each ingredient in turn, and of `start`.
        held_out: NDCG@10 of constants chosen on one half of the users and judged on the other.
        warm: with some items withheld, NDCG@10 over other targets with entries, by what is given to a newcomer.
        cold: HR@50 over the withheld targets, likewise; a little too high, since the title map has seen them.
    """

    recipe: Recipe
    requests: int
    ndcg: Mapping[str, float]
    held_out: float
    warm: Mapping[str, float]
    cold: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Calibration:
        """From JSON values.

        Raises:
            KeyError, TypeError, ValueError: something else.
        """
        tables = ({str(k): float(v) for k, v in record[name].items()} for name in ("ndcg", "warm", "cold"))
        ndcg, warm, cold = tables
        return cls(Recipe.of(record["recipe"]), int(record["requests"]), ndcg, float(record["held_out"]), warm, cold)


def enough(requests: int, items: int) -> int:
    """How many of the validation requests a calibration looks at."""
    return min(requests, max(FEWEST, CELLS // items))


def calibrate(
    materials: Materials,
    requests: Requests,
    targets: Rows,
    users: NDArray[np.integer[Any]],
    *,
    grid: Mapping[str, tuple[float | None, ...]] = GRID,
    name: str = "auto",
    without: Mapping[str, Mapping[str, float | None]] = WITHOUT,
    seed: int = 0,
    progress: Progress | None = None,
) -> Calibration:
    """Coordinate ascent in NDCG@10 from the best point of `COARSE`; what stands wins a tie, then the earlier one.

    Args:
        materials: memory and counts, without any validation target.
        requests: validation requests with thoughts, filtered as real ones will be.
        targets: the row that came next. Shape: (requests,).
        users: whose requests they are; halves for the held-out figure are drawn by user. Shape: (requests,).
        grid: what to try.
        name: of the decoder, in the figures.
        without: its ingredients, and the constants that take each out.
        seed: of the halves, and of the items that are withheld.
        progress: called with steps (done, total).

    Raises:
        ConfigError: no requests, or requests that do not fit the targets.
    """
    if not len(requests) or not len(requests) == len(targets) == len(users) or requests.thoughts is None:
        raise ConfigError("nothing to calibrate on", got=f"{len(requests)} requests, {len(targets)} targets")
    timed = bool((materials.entries.timestamp != UNKNOWN_TIME).all()) and bool(np.ptp(materials.entries.timestamp))
    idle = set() if timed else {"half_life"}
    idle |= set() if materials.text is not None else {"text"}
    grid = {constant: values for constant, values in grid.items() if constant not in idle}
    start = Recipe() if materials.text is not None else Recipe(text=0.0)

    distinct = np.unique(users)
    drawn = np.random.default_rng(seed).permutation(distinct)[: len(distinct) // 2]
    half = np.isin(users, drawn)
    parts = [np.flatnonzero(half), np.flatnonzero(~half)] if half.any() and not half.all() else []
    steps = (1 + len(grid) * ROUNDS) * (1 + len(parts)) + len(NEWCOMERS) + len(without)
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, steps)

    held_out = np.zeros(len(requests))
    for fitted, judged in zip(parts, parts[::-1], strict=True):
        chosen = _ascend(_Trial(materials, requests.take(fitted.tolist()), targets[fitted]), start, grid, step)
        held_out[judged] = _Trial(materials, requests.take(judged.tolist()), targets[judged]).gains(chosen)
    trial = _Trial(materials, requests, targets)
    recipe = _ascend(trial, start, grid, step)
    warm, cold, given = _newcomers(materials, recipe, requests, targets, seed, step)
    recipe = replace(recipe, newcomer=given)
    ndcg = {name: trial.ndcg(recipe), "start": trial.ndcg(start)}
    for ingredient, off in without.items():
        ndcg[f"without {ingredient}"] = trial.ndcg(replace(recipe, **off))  # type: ignore[arg-type]  # names of floats
        step()
    if progress is not None:
        progress(steps, steps)  # an ascent seldom needs all of its rounds
    return Calibration(recipe, len(requests), ndcg, float(held_out.mean()), warm, cold)


def _ascend(
    trial: _Trial, recipe: Recipe, grid: Mapping[str, tuple[float | None, ...]], step: Callable[[], None]
) -> Recipe:
    best = trial.ndcg(recipe)

    def consider(candidate: Recipe) -> None:
        nonlocal best, recipe
        if candidate != recipe and (found := trial.ndcg(candidate)) > best:
            best, recipe = found, candidate

    coarse = {name: [value for value in values if name in grid] or [None] for name, values in COARSE.items()}
    start = recipe
    for values in product(*coarse.values()):
        chosen = {name: value for name, value in zip(coarse, values, strict=True) if name in grid}
        consider(replace(start, **chosen))  # type: ignore[arg-type]  # names of floats
    step()
    for _ in range(ROUNDS):
        before = recipe
        for name, values in grid.items():
            for value in values:
                consider(replace(recipe, **{name: value}))  # type: ignore[arg-type]
            step()
        if recipe == before:
            break
    return recipe


def _newcomers(
    materials: Materials, recipe: Recipe, requests: Requests, targets: Rows, seed: int, step: Callable[[], None]
) -> tuple[dict[str, float], dict[str, float], float]:
    """Quality of other and of withheld targets by what a newcomer gets; the best for these that those can afford."""
    if materials.text is None:
        return {}, {}, 0.0
    known = np.flatnonzero(materials.items.counts > 0)
    withheld = np.zeros(len(materials.items), dtype=bool)
    withheld[np.random.default_rng([seed, 37]).permutation(known)[: int(len(known) * WITHHELD)]] = True
    trial = _Trial(materials.without(withheld), requests, targets)
    new, other = withheld[targets], (materials.items.counts > 0)[targets] & ~withheld[targets]
    warm: dict[str, float] = {}
    cold: dict[str, float] = {}
    for value in NEWCOMERS:
        ranks, name = trial.ranks(replace(recipe, newcomer=value)), f"{value:g}"
        warm[name] = float(_gains(ranks[other]).mean()) if other.any() else 0.0
        cold[name] = float((ranks[new] < LONG).mean()) if new.any() else 0.0
        step()
    affordable = [value for value in NEWCOMERS[1:] if warm[f"{value:g}"] >= warm["0"] * (1 - NEWCOMER_COST)]
    # Without any evidence a newcomer is taken for an average item: the first of those that nobody pays for.
    return warm, cold, max(affordable, key=lambda value: cold[f"{value:g}"], default=0.0)


class _Trial:
    """The same requests under many constants; what did not change since the last ones is not computed again."""

    def __init__(self, materials: Materials, requests: Requests, targets: Rows) -> None:
        self.requests, self.targets = requests, targets
        self.seen = Seen.of(requests.histories)
        listed = materials.items.counts >= requests.minimum_entries
        lines = range(len(requests)) if requests.filtered or not listed.all() else range(0)
        self.barred = [np.flatnonzero(~(requests.candidates(line, len(listed)) & listed)) for line in lines]
        self._thought = lru_cache(1)(lambda recipe: materials.classes(recipe).probabilities(self._thoughts))
        self._counts = lru_cache(1)(lambda recipe: materials.links(recipe).scores(requests.histories, recipe.fading))

    @property
    def _thoughts(self) -> NDArray[np.float32]:
        assert self.requests.thoughts is not None
        return self.requests.thoughts

    def ndcg(self, recipe: Recipe) -> float:
        """Mean NDCG@10."""
        return float(self.gains(recipe).mean())

    def gains(self, recipe: Recipe) -> NDArray[np.float64]:
        """NDCG@10 of each request. Shape: (requests,)."""
        return _gains(self.ranks(recipe))

    def ranks(self, recipe: Recipe) -> NDArray[np.int64]:
        """How many items stand before each target; `NOWHERE` if it cannot be listed. Shape: (requests,)."""
        same = Recipe()
        of_thought = replace(
            same, shrinkage=recipe.shrinkage, temperature=recipe.temperature, prior=recipe.prior,
            half_life=recipe.half_life, text=recipe.text, newcomer=recipe.newcomer,
        )  # fmt: skip
        of_counts = replace(same, backwards=recipe.backwards, damping=recipe.damping, fading=recipe.fading)
        share = np.float32(recipe.thought)
        scores = self.seen.damp(self._counts(of_counts).copy(), recipe)
        scores *= 1 - share
        thought = self.seen.damp(self._thought(of_thought).copy(), recipe)
        thought *= share
        scores += thought
        for line, rows in enumerate(self.barred):
            scores[line, rows] = 0.0
        wanted = scores[np.arange(len(scores)), self.targets][:, None]
        before = (scores > wanted).sum(axis=1)
        # Ties go to the smaller row; few lines have any at the target.
        tied = np.flatnonzero((scores == wanted).sum(axis=1) > 1)
        for line in tied.tolist():
            before[line] += int((scores[line, : self.targets[line]] == wanted[line]).sum())
        return np.where(wanted[:, 0] > 0, before, NOWHERE)


def _gains(ranks: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.where(ranks < CUT, 1 / np.log2(ranks + 2.0), 0.0)
