"""D3 against scoring every title alone, token by token, over sets of tuples; and against beam search."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from l2d.errors import ConfigError, InternalError
from l2d.language import D3, Beam, Trie
from l2d.language.d3 import Choices
from l2d.ranking import NOTHING, Requests
from l2d.testing import check_decoder
from titles import END, Counting, FakePrompts, assert_same, backbone, histories, next_log_probabilities, series

Path = tuple[int, ...]


class Toy:
    """An assistant that draws its opinion from the last item."""

    def __init__(self, items: int) -> None:
        scores = np.random.default_rng(5).normal(scale=2.0, size=(items + 1, items))
        self.table = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))

    def item_log_probabilities(self, histories: Sequence[np.ndarray]) -> np.ndarray:
        return self.table[[history[-1] if len(history) else -1 for history in histories]]


def brute_force(
    model: torch.nn.Module, prompts: FakePrompts, history: np.ndarray, alpha: float, items: np.ndarray | None
) -> list[tuple[float, int]]:
    """Every title's score by its definition, one model call per token that counts."""
    answers: list[Path] = [tuple(prompts.answer(row).tolist()) for row in range(len(prompts.titles))]
    prompt, following = prompts.prompt(history).tolist(), {}

    def mass(path: Path) -> float:
        return float(np.exp([items[row] for row, a in enumerate(answers) if a[: len(path)] == path]).sum())

    def score(answer: Path) -> float:
        total = 0.0
        for place, token in enumerate(answer):
            path = answer[:place]
            if len({a[place] for a in answers if a[:place] == path}) == 1:
                continue
            if path not in following:
                following[path] = next_log_probabilities(model, prompt + list(path))
            total += alpha * float(following[path][token])
            if items is not None:
                total += (1 - alpha) * float(np.log(mass((*path, token)) / mass(path)))
        return total

    return sorted(((score(answer), row) for row, answer in enumerate(answers)), key=lambda pair: (-pair[0], pair[1]))


@pytest.mark.parametrize("alpha", [1.0, 0.6, 0.0])
@pytest.mark.parametrize("family", ["llama", "gemma3", "lfm2"])
def test_a_beam_as_wide_as_the_catalogue_ranks_like_scoring_every_title_alone(family: str, alpha: float) -> None:
    prompts, body = series(), backbone(family)
    requests = Requests(histories(prompts, 4))
    assistant = None if alpha == 1 else Toy(30)
    decoder = D3(body, prompts, prompts.catalog, assistant=assistant, alpha=alpha, beams=30, batch_size=3)
    items = [None] * 4 if assistant is None else assistant.item_log_probabilities(requests.histories)
    expected = [
        brute_force(body.model, prompts, history, alpha, line)
        for history, line in zip(requests.histories, items, strict=True)
    ]
    assert_same(decoder.rank(requests, 30), expected)


def test_the_assistant_alone_is_the_assistants_ranking_and_need_not_be_normalised() -> None:
    prompts = FakePrompts([[2, 3, 4], [2, 5], [6], [7, 8], [7, 9]])
    assistant = Toy(5)
    requests = Requests(histories(prompts, 4))
    known = assistant.item_log_probabilities(requests.histories)
    for shift in (0.0, 3.0):
        assistant.table = assistant.table + shift
        ranked = D3(backbone("llama"), prompts, prompts.catalog, assistant=assistant, alpha=0.0).rank(requests, 5)
        np.testing.assert_allclose(ranked.scores, -np.sort(-known, axis=1), atol=1e-5)
        assert (ranked.rows == np.argsort(-known, axis=1)).all()


def test_nothing_behind_the_last_choice_is_read() -> None:
    prompts = FakePrompts([[2, 3, 4, 5, 6, 7], [2, 8, 9, 10, 11], [12, 13, 14]])
    d3 = D3(backbone("llama"), prompts, prompts.catalog)
    d3.forward = counting = Counting(d3.forward)
    d3.rank(Requests([np.array([0], dtype=np.int32)]), 3)
    assert (counting.passes, counting.tokens, d3.meter.model_calls) == (2, 1, 2)  # 12.. ends at once, 2 is read
    alone = FakePrompts([[3, 4]])
    only = D3(backbone("llama"), alone, alone.catalog).rank(Requests([np.array([0], dtype=np.int32)]), 2)
    assert (only.rows.tolist(), only.scores[0, 0]) == ([[0, NOTHING]], 0.0)


def test_differs_from_beam_by_the_ghosts_alone() -> None:
    """Where no token is forced the two are one; where a long forced tail is unlikely, D3 does not hold it against."""
    free = FakePrompts([[a, b] for a in (2, 3, 4) for b in (5, 6)] + [[a] for a in (2, 3, 4)])
    requests = Requests(histories(free, 5))
    body = backbone("llama")
    ours = D3(body, free, free.catalog, beams=9).rank(requests, 9)
    theirs = Beam(body, free, free.catalog, beams=9).rank(requests, 9)
    ends = np.array(
        [next_log_probabilities(body.model, [*free.prompt(h).tolist(), 2, 5])[END] for h in requests.histories]
    )
    places = [line.tolist().index(0) for line in ours.rows]
    old = [line.tolist().index(0) for line in theirs.rows]
    gap = ours.scores[np.arange(5), places] - theirs.scores[np.arange(5), old]
    np.testing.assert_allclose(gap, -ends, atol=1e-4)  # title 2 5 has one ghost, its end
    title = [line.tolist().index(6) for line in ours.rows]
    same = [line.tolist().index(6) for line in theirs.rows]
    np.testing.assert_allclose(ours.scores[np.arange(5), title], theirs.scores[np.arange(5), same], atol=1e-4)


@pytest.mark.parametrize("assisted", [False, True])
def test_filters_move_no_score_of_what_is_left(assisted: bool) -> None:
    prompts, body = series(), backbone("llama")
    past = histories(prompts, 4)
    d3 = D3(body, prompts, prompts.catalog, assistant=Toy(30) if assisted else None, beams=30, batch_size=3)
    free = d3.rank(Requests(past), 30)
    rng = np.random.default_rng(0)
    exclude = [rng.choice(30, size=20, replace=False).astype(np.int32) for _ in past]
    left = d3.rank(Requests(past, exclude=exclude), 12)
    for line, banned in enumerate(exclude):
        kept = ~np.isin(free.rows[line], banned)
        np.testing.assert_allclose(left.scores[line, :10], free.scores[line, kept], atol=1e-4)
        assert set(left.rows[line, :10].tolist()) == set(free.rows[line, kept].tolist())


@pytest.mark.parametrize("family", ["llama", "lfm2"])
@pytest.mark.parametrize("assisted", [False, True])
def test_keeps_the_contract_of_decoders(family: str, assisted: bool) -> None:
    prompts = series()
    assistant = Toy(30) if assisted else None
    d3 = D3(backbone(family), prompts, prompts.catalog, assistant=assistant, beams=33, batch_size=3)
    check_decoder(d3, Requests(histories(prompts, 5)), 30, tolerance=1e-4)
    assert (d3.name, d3.needs_thoughts) == ("d3", False)


@given(titles=st.lists(st.lists(st.integers(2, 4), min_size=1, max_size=6), min_size=1, max_size=25))
@settings(max_examples=60, deadline=None)
def test_choices_are_the_tokens_with_an_alternative(titles: list[list[int]]) -> None:
    answers = [(*title, END) for title in titles]
    trie = Trie.build(lambda row: np.array(answers[row], dtype=np.int32), len(answers))
    choices = Choices.of(trie)
    for row, answer in enumerate(answers):
        expected = [len({a[place] for a in answers if a[:place] == answer[:place]}) > 1 for place in range(len(answer))]
        found = choices.counted[trie.leaf[row]]
        assert found[: len(answer)].tolist() == expected and not found[len(answer) :].any()
        assert choices.ends[trie.leaf[row]] == max([place + 1 for place, one in enumerate(expected) if one], default=0)


class Partial(Toy):
    """An assistant that says one thing of item 4."""

    def __init__(self, said: float) -> None:
        super().__init__(30)
        self.said = said

    def item_log_probabilities(self, histories: Sequence[np.ndarray]) -> np.ndarray:
        return np.where(np.arange(30) == 4, self.said, super().item_log_probabilities(histories))


def test_an_item_that_the_assistant_does_not_know_is_as_good_as_its_worst() -> None:
    titles = [[2 + row % 6, 10 + row // 6] for row in range(30)]
    prompts = FakePrompts(titles)
    past = histories(prompts, 3)
    d3 = D3(backbone("llama"), prompts, prompts.catalog, assistant=Partial(-np.inf), alpha=0.0, beams=30)
    ranked = d3.rank(Requests(past), 30)
    known = np.delete(Toy(30).item_log_probabilities(past), 4, axis=1)
    weights = np.exp(np.insert(known, 4, known.min(axis=1), axis=1))
    expected = np.log(weights / weights.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(ranked.scores, -np.sort(-expected, axis=1), atol=1e-5)
    assert all({4, int(np.argmin(np.insert(k, 4, 9)))} == set(r[-2:]) for k, r in zip(known, ranked.rows, strict=True))


def test_impossible_input_is_refused() -> None:
    prompts, body = series(), backbone("llama")
    for options in ({"alpha": 0.5}, {"assistant": Toy(30), "alpha": 1.5}, {"assistant": Toy(30), "alpha": -0.1}):
        with pytest.raises(ConfigError, match="alpha"):
            D3(body, prompts, prompts.catalog, **options)
    for assistant in (Partial(np.nan), Partial(np.inf), Toy(29)):
        with pytest.raises(InternalError, match="assistant"):
            D3(body, prompts, prompts.catalog, assistant=assistant).rank(Requests(histories(prompts, 2)), 3)
