"""Free writing against `generate` and plain searches; grounding against one text and one title at a time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
import torch

from families import TITLES, open_family, tokenizer
from l2d.backbone import Backbone
from l2d.catalog import Catalog
from l2d.costs import Meter
from l2d.errors import ConfigError, DataError
from l2d.language import Grounding, Writer
from l2d.language.grounding import GAMMAS
from l2d.prompts import COMPACT, Prompts
from l2d.ranking import NOTHING, Requests
from l2d.testing import check_decoder
from titles import CONFIGS, backbone, histories, next_log_probabilities, series

LONGEST = 7


def paper() -> list[np.ndarray]:
    prompts = series()
    return [prompts.prompt(history) for history in histories(prompts, 6, seed=11)]


@cache
def ends(family: str) -> list[int]:
    """Tokens that the model does write, early and late."""
    texts = Writer(backbone(family), end=1, longest=LONGEST).write(paper())
    return [1, int(texts[0][2]), int(texts[1][-2])]


def generated(model: torch.nn.Module, prompt: np.ndarray, end: int, beams: int) -> list[int]:
    """What `generate` writes: the sum of log-probabilities decides, as here."""
    options = {"num_beams": beams, "length_penalty": 0.0, "early_stopping": "never"} if beams > 1 else {}
    out = model.generate(
        torch.from_numpy(prompt.astype(np.int64))[None],
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=LONGEST,
        do_sample=False,
        eos_token_id=end,
        pad_token_id=0,
        **options,
    )
    text = out[0, len(prompt) :].tolist()
    return text[: text.index(end)] if end in text else text


def plain_write(model: torch.nn.Module, prompt: list[int], end: int, beams: int) -> list[int]:
    """The rule of `l2d.language.writing`, one sequence at a time, over the whole vocabulary, nothing dropped early."""
    live, done = [(0.0, [])], []
    for _ in range(LONGEST):
        grown = [
            (total + float(score), [*text, token])
            for total, text in live
            for token, score in enumerate(next_log_probabilities(model, prompt + text))
        ]
        grown.sort(key=lambda pair: -pair[0])
        done += [(total, text[:-1]) for total, text in grown[:beams] if text[-1] == end]
        live = [pair for pair in grown if pair[1][-1] != end][:beams]
    return max(done + live, key=lambda pair: pair[0])[1]


@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize("family", CONFIGS)
def test_writes_what_generate_writes(family: str, beams: int) -> None:
    body, lengths = backbone(family), set()
    for end in ends(family):
        texts = Writer(body, end=end, longest=LONGEST, beams=beams).write(paper())
        for prompt, text in zip(paper(), texts, strict=True):
            assert text.tolist() == generated(body.model, prompt, end, beams)
            lengths.add(len(text))
    assert LONGEST in lengths and min(lengths) < LONGEST  # some end by themselves, some by their length


@pytest.mark.parametrize("beams", [1, 2, 3, 5])
def test_writes_what_a_plain_search_writes(beams: int) -> None:
    body = backbone("qwen3")
    for end in ends("qwen3"):
        texts = Writer(body, end=end, longest=LONGEST, beams=beams).write(paper()[:3])
        expected = [plain_write(body.model, prompt.tolist(), end, beams) for prompt in paper()[:3]]
        assert [text.tolist() for text in texts] == expected


def test_enough_beams_find_the_likeliest_text_of_all() -> None:
    body, end = backbone("llama"), 5
    vocabulary = [token for token in range(48) if token != end]
    for prompt in paper()[:3]:
        first = next_log_probabilities(body.model, prompt.tolist())
        scores = {(): first[end]}
        for token in vocabulary:
            second = next_log_probabilities(body.model, [*prompt.tolist(), token])
            scores |= {(token,): first[token] + second[end]}
            scores |= {(token, other): first[token] + second[other] for other in vocabulary}
        text = Writer(body, end=end, longest=2, beams=48).write([prompt])[0]
        assert tuple(text.tolist()) == max(scores, key=scores.__getitem__)


@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize("family", ["llama", "gemma3", "lfm2"])
def test_a_text_does_not_depend_on_its_batch(family: str, beams: int) -> None:
    writer = Writer(backbone(family), end=5, longest=LONGEST, beams=beams)
    together = [text.tolist() for text in writer.write(paper())]
    assert together == [writer.write([prompt])[0].tolist() for prompt in paper()]
    assert writer.write([]) == []


def test_greedy_writing_reads_the_model_once_per_token() -> None:
    writer = Writer(backbone("llama"), end=5, longest=LONGEST)
    for prompt in paper():
        writer.meter.reset()
        text = writer.write([prompt])[0]
        # The prompt gives the first token; each token but the last place's is read for the next, or for the end.
        assert writer.meter.model_calls == min(len(text) + 1, LONGEST)
        assert min(writer.meter.seconds[phase] for phase in ("prefill", "search")) > 0


TITLES_TWICE = [*TITLES, TITLES[3]]


@cache
def world() -> tuple[Catalog, Prompts]:
    catalog = Catalog.from_titles(TITLES_TWICE)
    return catalog, Prompts.compile(COMPACT, tokenizer(), catalog, max_tokens=200)


@pytest.fixture(scope="module")
def bodies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Backbone]:
    return {
        family: open_family(family, tmp_path_factory.mktemp(family)) for family in ("llama", "gpt2", "gemma3", "lfm2")
    }


def requests(n: int = 5) -> Requests:
    rng = np.random.default_rng(2)
    return Requests([rng.integers(0, len(TITLES_TWICE), size=rng.integers(0, 5)).astype(np.int32) for _ in range(n)])


@torch.inference_mode()
def state(body: Backbone, text: np.ndarray) -> np.ndarray:
    """The last state of one text behind the opening, read alone."""
    ids = torch.from_numpy(np.concatenate([world()[1].opening, text]).astype(np.int64))[None]
    return body.base(input_ids=ids, use_cache=False).last_hidden_state[0, -1].double().numpy()


def measured(body: Backbone, texts: Sequence[np.ndarray]) -> np.ndarray:
    titles = np.stack([state(body, world()[1].title(row)) for row in range(len(TITLES_TWICE))])
    return np.stack([np.sqrt(((titles - state(body, text)) ** 2).sum(axis=1)) for text in texts])


class Parrot:
    """A writer that writes what it was given, in turn."""

    def __init__(self, texts: Sequence[np.ndarray]) -> None:
        self.meter = Meter()
        self.texts = list(texts)

    def write(self, prompts: Sequence[np.ndarray]) -> list[np.ndarray]:
        written, self.texts = self.texts[: len(prompts)], self.texts[len(prompts) :]
        return written


@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "lfm2"])
def test_ranks_by_the_distance_of_last_states(bodies: dict[str, Backbone], family: str, beams: int) -> None:
    body, (catalog, prompts), asked = bodies[family], world(), requests()
    texts = Writer(body, end=prompts.end_id, longest=prompts.longest_title, beams=beams).write(
        [prompts.prompt(history) for history in asked.histories]
    )
    assert len({text.tobytes() for text in texts}) > 1
    expected = measured(body, texts)
    ranked = Grounding(body, prompts, catalog, beams=beams, batch_size=2).rank(asked, len(catalog))
    np.testing.assert_allclose(ranked.scores, -np.sort(expected, axis=1), rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(np.take_along_axis(expected, ranked.rows, axis=1), -ranked.scores, rtol=2e-4, atol=2e-4)


def test_a_written_title_lies_at_distance_zero_and_costs_no_pass(bodies: dict[str, Backbone]) -> None:
    catalog, prompts = world()
    parrot = Parrot([prompts.title(3), prompts.title(8), np.zeros(0, dtype=np.int32)])
    ranked = Grounding(bodies["llama"], prompts, catalog, writer=parrot, batch_size=1).rank(
        Requests([np.array([0], dtype=np.int32)] * 3), 10
    )
    assert ranked.rows[0, :2].tolist() == [3, len(TITLES)]  # its namesake ties and follows
    assert ranked.rows[1, 0] == 8
    assert ranked.scores[:2, 0].tolist() == [0, 0] and ranked.scores[0, 1] == 0
    assert parrot.meter.model_calls == 1  # for the empty text alone, which is the opening's state
    expected = np.sort(measured(bodies["llama"], [np.zeros(0, dtype=np.int32)])[0])[:10]
    np.testing.assert_allclose(-ranked.scores[2], expected, rtol=2e-4)


@pytest.mark.parametrize("family", ["llama", "lfm2"])
@pytest.mark.parametrize("popular", [False, True])
def test_keeps_the_contract_of_decoders(bodies: dict[str, Backbone], family: str, popular: bool) -> None:
    catalog, prompts = world()
    popularity = np.arange(len(catalog)) % 7 if popular else None
    decoder = Grounding(bodies[family], prompts, catalog, popularity=popularity, gamma=2.0, batch_size=3)
    check_decoder(decoder, requests(), len(catalog), tolerance=1e-3)
    assert (decoder.name, decoder.needs_thoughts) == ("grounding", False)


def test_popularity_weighs_scaled_distances(bodies: dict[str, Backbone]) -> None:
    body, (catalog, prompts) = bodies["llama"], world()
    text, counts = prompts.title(3)[:2], np.random.default_rng(1).integers(3, 40, size=len(catalog))
    distance = measured(body, [text])[0]
    scaled = (distance - distance.min()) / (distance.max() - distance.min())
    for gamma in (0.0, 0.5, 30.0):
        expected = scaled * (1 + (counts - counts.min()) / (counts.max() - counts.min())) ** -gamma
        decoder = Grounding(body, prompts, catalog, popularity=counts, gamma=gamma, writer=Parrot([text]))
        ranked = decoder.rank(Requests([np.zeros(1, dtype=np.int32)]), len(catalog))
        np.testing.assert_allclose(-ranked.scores[0], np.sort(expected), atol=1e-4)
        np.testing.assert_allclose(expected[ranked.rows[0]], -ranked.scores[0], atol=1e-4)


def test_gamma_is_fitted_on_validation(bodies: dict[str, Backbone]) -> None:
    body, (catalog, prompts) = bodies["gpt2"], world()
    counts = np.random.default_rng(3).integers(0, 50, size=len(catalog))
    asked = requests(12)
    popular = np.random.default_rng(4).choice(np.argsort(-counts)[:6], size=12).astype(np.int32)
    decoder = Grounding(body, prompts, catalog, popularity=counts, batch_size=5)
    found = decoder.fit_gamma(asked, popular)
    assert list(found) == list(GAMMAS) and decoder.gamma > 0
    assert found[decoder.gamma] == max(found.values()) > found[0.0]
    for gamma in (0.0, 1.0, decoder.gamma):
        ranked = Grounding(body, prompts, catalog, popularity=counts, gamma=gamma, batch_size=5).rank(asked, 10)
        places = [
            line.tolist().index(row) if row in line else None for line, row in zip(ranked.rows, popular, strict=True)
        ]
        expected = np.mean([0 if place is None else 1 / np.log2(place + 2) for place in places])
        assert found[gamma] == pytest.approx(expected)
    nearest = decoder.rank(asked, 1).rows[:, 0]
    assert decoder.fit_gamma(asked, nearest)[0.0] == 1 and decoder.gamma == 0  # all agree: the earliest wins


def test_impossible_input_is_refused(bodies: dict[str, Backbone]) -> None:
    body, (catalog, prompts) = bodies["llama"], world()
    for options in ({"beams": 0}, {"batch_size": 0}, {"gamma": -1.0}):
        with pytest.raises(ConfigError):
            Grounding(body, prompts, catalog, **options)
    for popularity in (np.ones(3), np.full(len(catalog), np.nan)):
        with pytest.raises(DataError, match="popularity"):
            Grounding(body, prompts, catalog, popularity=popularity)
    plain = Grounding(body, prompts, catalog)
    with pytest.raises(ConfigError, match="fit gamma"):
        plain.fit_gamma(requests(2), np.zeros(2, dtype=np.int32))
    with pytest.raises(ConfigError, match="k is too small"):
        plain.rank(requests(2), 0)
    with pytest.raises(ConfigError, match="longest"):
        Writer(body, end=1, longest=0)
    assert plain.rank(Requests([]), 3).rows.shape == (0, 3)
    assert (plain.rank(requests(2), len(catalog) + 2).rows[:, -2:] == NOTHING).all()
