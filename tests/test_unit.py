"""Taking confident tokens at once: exact with a confidence out of reach, hand-worked below it, full lists always."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from l2d.errors import ConfigError
from l2d.language import Beam, Trie, Unit
from l2d.language.prior import leaf_weights
from l2d.language.unit import UnitSearch
from l2d.ranking import NOTHING, Requests
from l2d.testing import check_decoder
from titles import (
    END,
    FakePrompts,
    Path,
    assert_same,
    backbone,
    histories,
    next_log_probabilities,
    plain_search,
    series,
)


@pytest.mark.parametrize("beams", [1, 2, 4])
@pytest.mark.parametrize("family", ["llama", "gemma3", "lfm2"])
def test_a_confidence_out_of_reach_is_beam(family: str, beams: int) -> None:
    prompts, body = series(40, seed=3), backbone(family)
    requests = Requests(histories(prompts, 6, seed=1))
    unit = Unit(body, prompts, prompts.catalog, confidence=1.1, beams=beams, batch_size=4)
    found = unit.rank(requests, beams)
    beam = Beam(body, prompts, prompts.catalog, beams=beams, batch_size=4)
    expected = beam.rank(requests, beams)
    assert (found.rows == expected.rows).all() and (found.scores == expected.scores).all()
    assert unit.meter.model_calls == beam.meter.model_calls
    answers = [tuple(prompts.answer(row).tolist()) for row in range(40)]
    assert_same(
        found, [plain_search(body.model, prompts.prompt(h).tolist(), answers, beams) for h in requests.histories]
    )


TITLES = [[2, 3, 4, 5], [2, 3, 4, 6], [2, 3, 7], [2, 8], [9, 2]]


def search(titles: list[list[int]], k: int, beams: int, confidence: float = 0.9) -> UnitSearch:
    trie = Trie.build(lambda row: np.array([*titles[row], END], dtype=np.int32), len(titles))
    allowed, weights = np.ones(len(titles), dtype=bool), leaf_weights(trie, None)
    return UnitSearch(trie, allowed, k, beams, confidence=confidence, drafted=8, weights=weights)


def test_a_sure_run_is_taken_in_one_pass() -> None:
    """Worked by hand. The root is unsure; below token 2 the model is sure of 3 and of 4, not of what follows."""
    found = search(TITLES, k=2, beams=2)
    assert found.wanted()[1].tolist() == [2, 9]
    found.advance(np.log([0.5, 0.4]))
    two, nine = found.chains(0)
    assert (two.tokens.tolist(), two.after) == ([2, 3, 4], -1)  # behind 4 the catalogue is even: no draft
    assert (nine.tokens.tolist(), nine.after) == ([9, 2], -1)
    lines, tokens = found.wanted()
    assert tokens.tolist() == [3, 8, 4, 7, 5, 6, 2, END]
    assert lines.tolist() == [0, 0, 1, 1, 2, 2, 3, 4]
    # Of 3 and 8 the model gives 3 .95; of 4 and 7 it gives 4 .92; 5 and 6 are even. Then 9's tail.
    found.advance(np.log([0.95, 0.05, 0.92, 0.08, 0.5, 0.5, 0.1, 0.1]))
    assert found.rows.tolist() == [4] and found.scores[0] == pytest.approx(np.log(0.4 * 0.1 * 0.1))
    five, six = found.chains(0)
    assert (five.tokens.tolist(), six.tokens.tolist(), five.prefix.tolist()) == ([5], [6], [2, 3, 4])
    assert (five.after, six.after) == (2, 2)  # behind the third token given: 4
    found.advance(np.log([1.0, 1.0]))
    rows, scores = found.best()
    assert (rows.tolist(), found.live) == ([0, 1], [])
    assert scores == pytest.approx(np.log([0.5 * 0.95 * 0.92 * 0.5] * 2))


def test_nothing_is_taken_alone_before_there_are_as_many_hypotheses_as_beams() -> None:
    found = search(TITLES, k=3, beams=3)
    found.advance(np.log([0.5, 0.4]))
    found.chains(0)
    found.advance(np.log([0.95, 0.05, 0.92, 0.08, 0.5, 0.5, 0.1, 0.1]))
    assert [chain.tokens.tolist() for chain in found.chains(0)] == [[3, 4], [8]]
    assert [chain.after for chain in found.chains(0)] == [0, 0]


def test_a_title_that_ends_beside_a_sure_token_is_listed() -> None:
    found = search([[2], [2, 3, 4], [2, 3, 5], [6]], k=2, beams=2)
    found.advance(np.log([0.5, 0.5]))
    found.chains(0)
    assert found.wanted()[1].tolist() == [END, 3, 4, 5, END]
    found.advance(np.log([0.05, 0.95, 0.5, 0.5, 0.01]))
    assert found.rows.tolist() == [0, 3]


def plain_unit(
    model: torch.nn.Module, prompt: list[int], answers: list[Path], beams: int, confidence: float, drafted: int
) -> list[tuple[float, int]]:
    """The same search over tuples, one token of one sequence at a time, nothing kept and nothing pruned early."""

    def children(path: Path) -> list[Path]:
        return sorted({answer[: len(path) + 1] for answer in answers if answer[: len(path)] == path})

    def following(path: Path) -> list[tuple[float, Path]]:
        scores = next_log_probabilities(model, prompt + list(path))
        return [(float(scores[child[-1]]), child) for child in children(path)]

    def to_choice(total: float, path: Path) -> tuple[float, Path]:
        """Through tokens that the catalogue forces, but not through the end."""
        while len(children(path)) == 1 and children(path)[0] not in answers:
            ((score, path),) = following(path)
            total += score
        return total, path

    def heavy(path: Path) -> Path | None:
        below = {child: sum(answer[: len(child)] == child for answer in answers) for child in children(path)}
        best = max(below, key=lambda child: below[child])
        return best if 2 * below[best] > sum(below.values()) else None

    def walk(total: float, path: Path, furthest: int, crowded: bool) -> list[tuple[float, Path]]:
        grown = [(total + score, child) for score, child in following(path)]
        score, child = max(grown)
        if not crowded or score - np.logaddexp.reduce([total for total, _ in grown]) < np.log(confidence):
            return grown
        ended = [pair for pair in grown if pair[1] in answers and pair[1] != child]
        if child in answers or child != heavy(path) or len(to_choice(score, child)[1]) > furthest:
            return [*ended, (score, child)]
        return ended + walk(*to_choice(score, child), furthest, crowded)

    live: list[tuple[float, Path]] = [(0.0, ())]
    done: dict[Path, float] = {}
    while live:
        crowded = len(live) + sum(answer in done for answer in answers) >= beams
        reading = [(total, path, len(path) + drafted if path else 0) for total, path in live]
        grown = [pair for total, path, furthest in reading for pair in walk(total, path, furthest, crowded)]
        done |= {path: total for total, path in grown if path in answers}
        live = sorted((pair for pair in grown if pair[1] not in answers), key=lambda pair: -pair[0])[:beams]
        live = [to_choice(*pair) for pair in live]
    rows = [(done[answer], row) for row, answer in enumerate(answers) if answer in done]
    return sorted(rows, key=lambda pair: (-np.float32(pair[0]), pair[1]))[:beams]


@pytest.mark.parametrize("drafted", [0, 2, 8])
@pytest.mark.parametrize("family", ["llama", "lfm2"])
def test_equals_a_plain_search_that_gives_up_the_same(family: str, drafted: int) -> None:
    prompts, body = series(40, seed=5), backbone(family)
    past = histories(prompts, 6, seed=2)
    unit = Unit(body, prompts, prompts.catalog, confidence=0.6, drafted=drafted, beams=3, batch_size=2)
    answers = [tuple(prompts.answer(row).tolist()) for row in range(40)]
    asked = [prompts.prompt(history).tolist() for history in past]
    expected = [plain_unit(body.model, prompt, answers, 3, 0.6, drafted) for prompt in asked]
    assert_same(unit.rank(Requests(past), 3), expected)


def test_a_narrow_search_loses_something_and_a_wide_one_nothing() -> None:
    prompts, body = series(40, seed=5), backbone("llama")
    requests = Requests(histories(prompts, 12, seed=2))
    exact = Beam(body, prompts, prompts.catalog, beams=40).rank(requests, 40)
    unit = Unit(body, prompts, prompts.catalog, confidence=0.5, beams=4)
    assert (unit.rank(requests, 4).rows != exact.rows[:, :4]).any()
    wide = Unit(body, prompts, prompts.catalog, confidence=0.5, beams=40)
    assert (wide.rank(requests, 40).rows == exact.rows).all()


def test_fewer_passes_than_beam() -> None:
    rng = np.random.default_rng(0)
    stems = [rng.integers(2, 40, size=5).tolist() for _ in range(6)]
    prompts = FakePrompts([[*stem[:length], 41 + length] for stem in stems for length in (1, 2, 3, 4, 5)])
    body, past = backbone("llama"), histories(prompts, 8)
    calls = {}
    for confidence in (1.1, 0.7, 0.3):
        unit = Unit(body, prompts, prompts.catalog, confidence=confidence, beams=3)
        for history in past:
            unit.rank(Requests([history]), 3)
        calls[confidence] = unit.meter.model_calls
    assert calls[1.1] > calls[0.7] > calls[0.3]


def test_popularity_steers_the_draft() -> None:
    prompts = FakePrompts([[2, 3, 4], [2, 3, 5], [2, 3, 7], [2, 6, 7], [2, 6, 8], [9]])
    weights = np.array([0, 0, 0, 50, 50, 0])
    for popularity, drafted in ((None, [2, 3]), (weights, [2, 6])):
        unit = Unit(backbone("llama"), prompts, prompts.catalog, popularity=popularity)
        (found,) = unit._searches(Requests([np.array([0], dtype=np.int32)]), 1)
        found.advance(np.log([0.9, 0.05]))
        assert found.chains(0)[0].tokens.tolist() == drafted


@settings(max_examples=25, deadline=None)
@given(
    titles=st.lists(st.lists(st.integers(2, 5), min_size=1, max_size=6), min_size=1, max_size=25),
    beams=st.integers(1, 6),
    k=st.integers(1, 8),
    confidence=st.floats(0.1, 1.0),
    drafted=st.integers(0, 6),
    banned=st.sets(st.integers(0, 24)),
)
def test_lists_are_full_and_never_hold_an_invalid_item(
    titles: list[list[int]], beams: int, k: int, confidence: float, drafted: int, banned: set[int]
) -> None:
    prompts = FakePrompts(titles)
    out = np.array([row for row in banned if row < len(titles)], dtype=np.int32)
    requests = Requests([np.array([0], dtype=np.int32), np.array([], dtype=np.int32)], exclude=[out, out[:0]])
    unit = Unit(backbone("llama"), prompts, prompts.catalog, confidence=confidence, drafted=drafted, beams=beams)
    ranking = unit.rank(requests, k)
    for line, free in enumerate((len(titles) - len(out), len(titles))):
        rows = ranking.rows[line][ranking.rows[line] != NOTHING].tolist()
        assert len(rows) == min(k, free)
        assert set(rows) <= set(range(len(titles))) - (set(out.tolist()) if line == 0 else set())


@pytest.mark.parametrize("confidence", [0.5, 0.9])
def test_the_contract_of_every_decoder(confidence: float) -> None:
    prompts = series(30, seed=2)
    unit = Unit(backbone("llama"), prompts, prompts.catalog, confidence=confidence, beams=33, batch_size=3)
    check_decoder(unit, Requests(histories(prompts, 5, seed=5)), 30, tolerance=1e-4)
    assert (unit.name, unit.needs_thoughts) == ("unit", False)


def test_impossible_options_are_refused() -> None:
    prompts = series()
    short = np.ones(3)
    for options in ({"confidence": 0.0}, {"drafted": -1}, {"popularity": short}, {"popularity": -np.ones(30)}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            Unit(backbone("llama"), prompts, prompts.catalog, **options)
