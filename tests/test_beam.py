"""Beam search against scoring every title alone, against a plain search, and against `generate`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from l2d.backbone import Backbone
from l2d.catalog import Catalog
from l2d.costs import PHASES
from l2d.errors import ConfigError, DataError
from l2d.language import Beam, Trie
from l2d.language.forward import CachedForward, Chain, Forward, PlainForward, trial_error
from l2d.language.search import Search
from l2d.ranking import NOTHING, Requests
from l2d.testing import check_decoder

VOCABULARY, END, WINDOW = 48, 1, 16
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": END,
    "pad_token_id": 0,
}
CONFIGS = {
    "llama": ("LlamaConfig", {}),
    "qwen3": ("Qwen3Config", {"head_dim": 8}),
    "gpt2": ("GPT2Config", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}),
    "gemma2": ("Gemma2Config", {"head_dim": 8, "sliding_window": WINDOW, "query_pre_attn_scalar": 8}),
    "gemma3": (
        "Gemma3TextConfig",
        {
            "head_dim": 8,
            "sliding_window": WINDOW,
            "query_pre_attn_scalar": 8,
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
    "mistral": ("MistralConfig", {"head_dim": 8, "sliding_window": WINDOW}),
    "lfm2": ("Lfm2Config", {"layer_types": ["conv", "full_attention"]}),
}
CACHED = [family for family in CONFIGS if family != "lfm2"]


@cache
def backbone(family: str) -> Backbone:
    """A tiny random model whose next-token distribution is far from flat."""
    name, extra = CONFIGS[family]
    config = getattr(transformers, name)(**{**SHAPE, **extra})
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6.0)
    return Backbone(model, None, family)  # type: ignore[arg-type]


class FakePrompts:
    """Titles given as token ids; a prompt is their plain sequence behind token 0."""

    def __init__(self, titles: list[list[int]]) -> None:
        self.titles = titles
        self.catalog = Catalog.from_titles([f"item {row}" for row in range(len(titles))])

    def prompt(self, history: np.ndarray) -> np.ndarray:
        return np.array([0] + [token for row in history for token in [*self.titles[row], END]], dtype=np.int32)

    def answer(self, row: int) -> np.ndarray:
        return np.array([*self.titles[row], END], dtype=np.int32)


def series(items: int = 30, seed: int = 0) -> FakePrompts:
    """Titles with shared beginnings, forced tails, prefixes of others and duplicates."""
    rng = np.random.default_rng(seed)
    stems = [rng.integers(2, 12, size=rng.integers(1, 4)).tolist() for _ in range(5)]
    titles = [stems[rng.integers(5)] + rng.integers(2, 12, size=rng.integers(0, 4)).tolist() for _ in range(items - 2)]
    return FakePrompts([*titles, titles[0], titles[3]])


def histories(prompts: FakePrompts, n: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, len(prompts.titles), size=rng.integers(0, 8)).astype(np.int32) for _ in range(n)]


@torch.inference_mode()
def next_log_probabilities(model: torch.nn.Module, ids: list[int]) -> np.ndarray:
    logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
    return torch.log_softmax(logits.double(), dim=-1).numpy()


@torch.inference_mode()
def teacher_forced(model: torch.nn.Module, prompt: np.ndarray, answer: np.ndarray) -> float:
    ids = torch.tensor([[*prompt.tolist(), *answer.tolist()]])
    scores = torch.log_softmax(model(input_ids=ids, use_cache=False).logits[0].double(), dim=-1)
    places = range(len(prompt) - 1, ids.shape[1] - 1)
    return float(sum(scores[place, ids[0, place + 1]] for place in places))


class Counting:
    """A forward that counts its passes and the answer tokens read in them."""

    def __init__(self, inner: Forward) -> None:
        self.inner, self.passes, self.tokens = inner, 0, 0

    def start(self, prompts: Sequence[np.ndarray]) -> torch.Tensor:
        self.passes += 1
        return self.inner.start(prompts)

    def extend(self, chains: Sequence[Chain]) -> torch.Tensor:
        self.passes += 1
        self.tokens += sum(len(chain.tokens) for chain in chains)
        return self.inner.extend(chains)


Path = tuple[int, ...]


def plain_search(model: torch.nn.Module, prompt: list[int], answers: list[Path], beams: int) -> list[tuple[float, int]]:
    """The same search over tuples, one token of one sequence at a time, nothing kept and nothing pruned early."""

    def following(path: Path) -> list[tuple[float, Path]]:
        scores = next_log_probabilities(model, prompt + list(path))
        tokens = sorted({answer[len(path)] for answer in answers if answer[: len(path)] == path})
        return [(float(scores[token]), (*path, token)) for token in tokens]

    live, done = [(0.0, ())], {}
    while live:
        grown = [(total + score, path) for total, start in live for score, path in following(start)]
        done |= {path: total for total, path in grown if path in answers}
        live = sorted((pair for pair in grown if pair[1] not in answers), key=lambda pair: -pair[0])[:beams]
        for place, (total, path) in enumerate(live):  # what the trie forces belongs to the choice before it
            score, reached = total, path
            while reached not in answers and len(following(reached)) == 1:
                step, reached = following(reached)[0]
                score += step
            live[place] = (score, reached)
        done |= {path: total for total, path in live if path in answers}
        live = [pair for pair in live if pair[1] not in answers]
    rows = [(score, row) for path, score in done.items() for row, answer in enumerate(answers) if answer == path]
    return sorted(rows, key=lambda pair: (-np.float32(pair[0]), pair[1]))[:beams]


def assert_same(rankings, expected: list[list[tuple[float, int]]], tolerance: float = 2e-4) -> None:
    """Scores agree; rows agree wherever scores are further apart than the tolerance."""
    for line, pairs in enumerate(expected):
        want = np.array([score for score, _ in pairs])
        np.testing.assert_allclose(rankings.scores[line, : len(pairs)], want, atol=tolerance)
        assert (rankings.rows[line, len(pairs) :] == NOTHING).all()
        lookup = {row: score for score, row in pairs}
        for place, row in enumerate(rankings.rows[line, : len(pairs)].tolist()):
            if row in lookup:
                assert abs(lookup[row] - want[place]) < tolerance
            else:
                assert abs(want[place] - want[-1]) < tolerance


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
