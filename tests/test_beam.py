"""Beam search against scoring every title alone, against a plain search, and against `generate`."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from l2d.costs import PHASES
from l2d.errors import ConfigError, DataError
from l2d.language import Beam, Trie
from l2d.language.forward import CachedForward, PlainForward, trial_error
from l2d.language.search import Search
from l2d.ranking import NOTHING, Requests
from l2d.testing import check_decoder
from titles import (
    CACHED,
    CONFIGS,
    END,
    WINDOW,
    Counting,
    FakePrompts,
    assert_same,
    backbone,
    histories,
    plain_search,
    series,
    teacher_forced,
)


@pytest.mark.parametrize("family", CONFIGS)
def test_a_beam_as_wide_as_the_catalogue_ranks_like_scoring_every_title_alone(family: str) -> None:
    prompts, body = series(), backbone(family)
    requests = Requests(histories(prompts, 5))
    beam = Beam(body, prompts, prompts.catalog, beams=30, batch_size=3)
    assert isinstance(beam.forward, CachedForward if family in CACHED else PlainForward)
    rankings = beam.rank(requests, 30)
    expected = []
    for history in requests.histories:
        scores = [(teacher_forced(body.model, prompts.prompt(history), prompts.answer(row)), row) for row in range(30)]
        expected.append(sorted(scores, key=lambda pair: (-pair[0], pair[1])))
    assert max(len(prompts.prompt(history)) for history in requests.histories) > WINDOW + 5
    assert_same(rankings, expected)
    assert (np.sort(rankings.rows, axis=1) == np.arange(30)).all()


@pytest.mark.parametrize("beams", [1, 2, 3])
@pytest.mark.parametrize("family", ["llama", "gemma3", "lfm2"])
def test_a_narrow_beam_equals_a_plain_search(family: str, beams: int) -> None:
    prompts, body = series(40, seed=3), backbone(family)
    requests = Requests(histories(prompts, 6, seed=1))
    beam = Beam(body, prompts, prompts.catalog, beams=beams, batch_size=4)
    answers = [tuple(prompts.answer(row).tolist()) for row in range(40)]
    expected = [plain_search(body.model, prompts.prompt(h).tolist(), answers, beams) for h in requests.histories]
    assert_same(beam.rank(requests, beams), expected)


@pytest.mark.parametrize(("third", "winner", "score"), [(-0.5, 1, -0.7), (-1.5, 0, -1.0)])
def test_a_finished_item_ends_only_what_cannot_pass_it_any_more(third: float, winner: int, score: float) -> None:
    """Worked by hand: titles 2 | 2 3 | 4 5 6, one place in the list."""
    answers = [[2, END], [2, 3, END], [4, 5, 6, END]]
    trie = Trie.build(lambda row: np.array(answers[row], dtype=np.int32), 3)
    search = Search(trie, np.ones(3, dtype=bool), k=1, beams=5)
    assert search.wanted()[1].tolist() == [2, 4]
    search.advance(np.array([-0.1, -3.0]))
    assert [chain.tokens.tolist() for chain in search.chains(0)] == [[2], [4, 5, 6]]
    lines, tokens = search.wanted()
    assert (lines.tolist(), tokens.tolist()) == ([0, 0, 1, 2, 3], [END, 3, 5, 6, END])
    search.advance(np.array([-0.9, third, -0.1, -0.1, -0.1]))
    assert search.rows.tolist() == [0] and search.scores[0] == pytest.approx(-1.0)
    assert len(search.live) == (winner == 1)
    if search.live:
        assert [chain.tokens.tolist() for chain in search.chains(0)] == [[3]]
        assert search.wanted()[1].tolist() == [END]
        search.advance(np.array([-0.1]))
    rows, scores = search.best()
    assert (rows.tolist(), not search.live) == ([winner], True)
    assert scores[0] == pytest.approx(score)


def test_giving_up_hopeless_paths_changes_no_short_list_and_saves_reading() -> None:
    prompts, body = series(40, seed=6), backbone("llama")
    requests = Requests(histories(prompts, 25, seed=3))
    beam = Beam(body, prompts, prompts.catalog, beams=40)
    beam.forward = counting = Counting(beam.forward)
    full = beam.rank(requests, 40)
    everything = counting.tokens
    for k in (1, 2, 4):
        counting.tokens = 0
        short = beam.rank(requests, k)
        np.testing.assert_allclose(short.scores, full.scores[:, :k], atol=1e-4)
        assert (short.rows == full.rows[:, :k]).all()
        assert 0 < counting.tokens < everything


@pytest.mark.parametrize("family", CONFIGS)
def test_batch_equals_single(family: str) -> None:
    prompts, body = series(), backbone(family)
    requests = Requests(histories(prompts, 7, seed=2), exclude=[np.array([row], dtype=np.int32) for row in range(7)])
    alone = Beam(body, prompts, prompts.catalog, beams=4, batch_size=1).rank(requests, 4)
    together = Beam(body, prompts, prompts.catalog, beams=4, batch_size=7).rank(requests, 4)
    np.testing.assert_allclose(alone.scores, together.scores, atol=1e-4)
    assert (alone.rows == together.rows).all()
    backwards = Beam(body, prompts, prompts.catalog, beams=4).rank(requests.take(range(6, -1, -1)), 4)
    assert (backwards.rows[::-1] == together.rows).all()


def test_cached_and_plain_forward_agree_and_the_trial_sees_a_wrong_mask() -> None:
    body = backbone("gemma3")
    cached = Beam(body, series(), series().catalog).forward
    assert isinstance(cached, CachedForward)
    assert trial_error(body, cached, PlainForward(body), past=WINDOW) < 1e-5
    wrong = CachedForward(body, type(cached.form).FULL)  # ignores the window
    assert trial_error(body, wrong, PlainForward(body), past=WINDOW) > 1e-3


def test_filters_restrict_the_search_itself() -> None:
    prompts, body = series(), backbone("qwen3")
    past = histories(prompts, 4)
    free = Beam(body, prompts, prompts.catalog, beams=30).rank(Requests(past), 30)
    exclude = [free.rows[line, :20].astype(np.int32) for line in range(4)]
    allow = [None, np.array([5, 6, 7], dtype=np.int32), np.array([8], dtype=np.int32), np.array([], dtype=np.int32)]
    excluded = Beam(body, prompts, prompts.catalog, beams=10).rank(Requests(past, exclude=exclude), 12)
    assert (excluded.rows[:, :10] == free.rows[:, 20:]).all()
    assert (excluded.rows[:, 10:] == NOTHING).all()
    allowed = Beam(body, prompts, prompts.catalog).rank(Requests(past, allow=allow), 10)
    assert set(allowed.rows[1, :3].tolist()) == {5, 6, 7}
    assert allowed.rows[2, 0] == 8
    assert (allowed.rows[1:] != NOTHING).sum(axis=1).tolist() == [3, 1, 0]
    assert (allowed.rows[0] == free.rows[0, :10]).all()
    np.testing.assert_allclose(allowed.scores[0], free.scores[0, :10], atol=1e-4)


def test_duplicate_titles_share_a_score_and_stand_in_row_order() -> None:
    titles = [[2, 3], [4, 5], [2, 3], [6], [2, 3]]
    prompts = FakePrompts(titles)
    beam = Beam(backbone("llama"), prompts, prompts.catalog, beams=1)
    requests = Requests([np.array([1], dtype=np.int32)])
    ranking = beam.rank(requests, 5)
    line = ranking.rows[0].tolist()
    assert [row for row in line if row in (0, 2, 4)] == [0, 2, 4]
    assert len({float(ranking.scores[0, line.index(row)]) for row in (0, 2, 4)}) == 1
    assert line.index(4) == line.index(0) + 2
    only = beam.rank(Requests(requests.histories, exclude=[np.array([0], dtype=np.int32)]), 5).rows[0].tolist()
    assert 0 not in only and only.index(4) == only.index(2) + 1


def test_forced_tokens_take_one_pass_and_the_meter_counts_it() -> None:
    prompts = FakePrompts([[2, 3, 4, 5, 6, 7], [2, 8, 9, 10, 11], [12, 13, 14]])
    beam = Beam(backbone("llama"), prompts, prompts.catalog, beams=10, batch_size=2)
    beam.forward = counting = Counting(beam.forward)
    past = [np.array([0], dtype=np.int32), np.array([0, 1, 2], dtype=np.int32), np.array([], dtype=np.int32)]
    beam.rank(Requests(past), 3)
    # Prompt; first choice (2 | 12 with its tail); second choice (3.. | 8.. with their tails): in two batches.
    assert counting.passes == beam.meter.model_calls == 6
    assert counting.tokens == 3 * (1 + 3 + 5 + 4)


def test_the_meter_books_all_of_a_rank_and_runs_until_it_is_reset() -> None:
    prompts = series()
    beam = Beam(backbone("llama"), prompts, prompts.catalog, batch_size=2)
    start = time.perf_counter()
    beam.rank(Requests(histories(prompts, 6)), 3)
    wall = time.perf_counter() - start
    assert all(beam.meter.seconds[phase] > 0 for phase in PHASES)
    assert sum(beam.meter.seconds.values()) <= wall  # phases do not overlap
    calls = beam.meter.model_calls
    beam.rank(Requests(histories(prompts, 6)), 3)
    assert (beam.meter.model_calls, beam.meter.draft_calls) == (2 * calls, 0)


def test_keeps_the_contract_of_decoders() -> None:
    prompts = series()
    beam = Beam(backbone("llama"), prompts, prompts.catalog, beams=33, batch_size=3)
    check_decoder(beam, Requests(histories(prompts, 5)), 30, tolerance=1e-4)


def test_lists_are_full_when_k_exceeds_the_beams() -> None:
    prompts = series(40, seed=5)
    ranking = Beam(backbone("llama"), prompts, prompts.catalog, beams=2).rank(Requests(histories(prompts, 3)), 25)
    wide = Beam(backbone("llama"), prompts, prompts.catalog, beams=25).rank(Requests(histories(prompts, 3)), 25)
    assert (ranking.rows != NOTHING).all()
    assert (ranking.rows == wide.rows).all()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_equals_generate_where_the_beam_holds_every_path(family: str) -> None:
    """`generate` steps by tokens and keeps 2 x beams candidates a step; as wide as the catalogue both are exact."""
    prompts, body = series(16, seed=4), backbone(family)
    distinct = sorted({tuple(prompts.answer(row).tolist()) for row in range(16)})
    past = histories(prompts, 3, seed=7)
    ranking = Beam(body, prompts, prompts.catalog, beams=16).rank(Requests(past), 16)
    for line, history in enumerate(past):
        prompt = prompts.prompt(history).tolist()

        def allowed(_: int, ids: torch.Tensor, start: int = len(prompt)) -> list[int]:
            path = tuple(ids.tolist()[start:])
            return sorted({a[len(path)] for a in distinct if a[: len(path)] == path and len(a) > len(path)}) or [END]

        out = body.model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            num_beams=len(distinct),
            num_return_sequences=len(distinct),
            prefix_allowed_tokens_fn=allowed,
            length_penalty=0.0,
            max_new_tokens=12,
            early_stopping="never",
            do_sample=False,
            return_dict_in_generate=True,
            output_scores=True,
            eos_token_id=END,
            pad_token_id=0,
        )
        ours = {}
        for row, score in zip(ranking.rows[line].tolist(), ranking.scores[line].tolist(), strict=True):
            ours.setdefault(tuple(prompts.answer(row).tolist()), score)
        theirs = {}
        for ids, score in zip(out.sequences.tolist(), out.sequences_scores.tolist(), strict=True):
            path = tuple(ids[len(prompt) :])
            theirs[path[: path.index(END) + 1]] = score
        assert list(theirs) == list(ours)
        np.testing.assert_allclose(list(theirs.values()), list(ours.values()), atol=1e-3)


@settings(max_examples=25, deadline=None)
@given(
    titles=st.lists(st.lists(st.integers(2, 5), min_size=1, max_size=6), min_size=1, max_size=25),
    beams=st.integers(1, 6),
    k=st.integers(1, 8),
    banned=st.sets(st.integers(0, 24)),
)
def test_never_an_invalid_item(titles: list[list[int]], beams: int, k: int, banned: set[int]) -> None:
    prompts = FakePrompts(titles)
    out = np.array([row for row in banned if row < len(titles)], dtype=np.int32)
    requests = Requests([np.array([0], dtype=np.int32), np.array([], dtype=np.int32)], exclude=[out, out[:0]])
    body = backbone("llama")
    ranking = Beam(body, prompts, prompts.catalog, beams=beams).rank(requests, k)
    for line, free in enumerate((len(titles) - len(out), len(titles))):
        rows = ranking.rows[line][ranking.rows[line] != NOTHING].tolist()
        assert len(rows) == min(k, free)
        assert set(rows) <= set(range(len(titles))) - (set(out.tolist()) if line == 0 else set())
        for row, score in zip(rows, ranking.scores[line].tolist(), strict=False):
            prompt = prompts.prompt(requests.histories[line])
            assert abs(score - teacher_forced(body.model, prompt, prompts.answer(row))) < 2e-4


@given(titles=st.lists(st.lists(st.integers(2, 5), min_size=1, max_size=6), min_size=1, max_size=25), data=st.data())
@settings(max_examples=60, deadline=None)
def test_the_trie_equals_sets_of_tuples(titles: list[list[int]], data: st.DataObject) -> None:
    answers = [(*title, END) for title in titles]
    trie = Trie.build(lambda row: np.array(answers[row], dtype=np.int32), len(answers))
    allowed = np.array(data.draw(st.lists(st.booleans(), min_size=len(answers), max_size=len(answers))), dtype=bool)
    kept = {answer for answer, keep in zip(answers, allowed, strict=True) if keep}
    leaves = trie.leaves(allowed)
    assert [tuple(trie.tokens[leaf, : trie.lengths[leaf]].tolist()) for leaf in leaves] == sorted(kept)
    assert sorted(row for leaf in range(len(trie)) for row in trie.rows_of(leaf).tolist()) == list(range(len(answers)))
    pending = [(0, len(leaves), ())] if len(leaves) else []
    while pending:
        low, high, path = pending.pop()
        children = trie.children(leaves, low, high, len(path))
        assert children.tokens.tolist() == sorted({answer[len(path)] for answer in kept if answer[: len(path)] == path})
        for token, start, stop in zip(*(part.tolist() for part in children), strict=True):
            below = [answer for answer in kept if answer[: len(path) + 1] == (*path, token)]
            assert stop - start == len(below)
            reached = trie.reach(leaves, start, stop)
            forced = below[0][: len(below[0]) - 1] if len(below) == 1 else below[0][:reached]
            assert reached == len(forced) and all(answer[:reached] == forced for answer in below)
            if len(below) > 1:
                assert len({answer[reached] for answer in below}) > 1
                pending.append((start, stop, forced))


def test_impossible_input_is_refused() -> None:
    prompts = FakePrompts([[2, 3], [2, 3, END, 4]])
    with pytest.raises(DataError, match="rows 0 and 1"):
        Beam(backbone("llama"), prompts, prompts.catalog)
    fine = series()
    for options in ({"beams": 0}, {"batch_size": 0}):
        with pytest.raises(ConfigError):
            Beam(backbone("llama"), fine, fine.catalog, **options)
    with pytest.raises(ConfigError):
        Beam(backbone("llama"), fine, fine.catalog).rank(Requests(histories(fine, 1)), 0)


def test_no_requests_give_no_lines() -> None:
    prompts = series()
    assert Beam(backbone("llama"), prompts, prompts.catalog).rank(Requests([]), 4).rows.shape == (0, 4)


def test_progress_counts_requests() -> None:
    prompts, seen = series(), []
    beam = Beam(backbone("llama"), prompts, prompts.catalog, batch_size=2)
    beam.rank(Requests(histories(prompts, 5)), 3, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2, 5), (4, 5), (5, 5)]
    assert (beam.name, beam.needs_thoughts) == ("beam", False)
