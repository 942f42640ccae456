"""Copied and verified text is greedy text, in fewer passes where titles are known; its lists are grounding's."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from families import TITLES, open_family, tokenizer
from l2d.catalog import Catalog
from l2d.errors import ConfigError
from l2d.language import Grounding, Reference, Trie, Writer
from l2d.language.copying import CopyingWriter, References
from l2d.language.forward import open_forward
from l2d.prompts import COMPACT, Prompts
from l2d.ranking import Requests
from l2d.testing import check_decoder
from test_grounding import LONGEST, ends, generated, paper
from titles import CONFIGS, END, FakePrompts, backbone, histories, series


def trie_of(prompts: FakePrompts) -> Trie:
    return Trie.build(prompts.answer, len(prompts.titles))


@pytest.mark.parametrize("family", CONFIGS)
def test_writes_what_generate_writes(family: str) -> None:
    body, lengths = backbone(family), set()
    forward = open_forward(body)
    for end in ends(family):
        for copied, match in ((1, 1), (8, 3)):
            writer = CopyingWriter(forward, References(trie_of(series()), copied, match), end=end, longest=LONGEST)
            texts = writer.write(paper())
            for prompt, text in zip(paper(), texts, strict=True):
                assert text.tolist() == generated(body.model, prompt, end, 1)
                lengths.add(len(text))
    assert LONGEST in lengths and min(lengths) < LONGEST
    assert writer.write([]) == []


@cache
def world(family: str = "llama") -> FakePrompts:
    """A catalogue of what the model likes to write: its own greedy texts, and others that begin like them."""
    body, prompts = backbone(family), series()
    asked = [prompts.prompt(history) for history in histories(prompts, 20, seed=8)]
    liked = [text.tolist() for text in Writer(body, end=END, longest=LONGEST).write(asked) if len(text)]
    return FakePrompts([*series().titles, *liked, *[[*text[:3], 40] for text in liked]])


def one_by_one(writer: Writer | CopyingWriter, prompts: list[np.ndarray]) -> tuple[list[list[int]], list[int]]:
    """The text of each prompt, and the calls it took."""
    texts, calls = [], []
    for prompt in prompts:
        writer.meter.reset()
        texts += [text.tolist() for text in writer.write([prompt])]
        calls.append(writer.meter.model_calls)
    return texts, calls


@pytest.mark.parametrize("family", ["llama", "lfm2"])
def test_the_same_text_in_fewer_calls_where_titles_are_known(family: str) -> None:
    prompts, body = world(family), backbone(family)
    # Histories of the very texts: what is written can be copied from the prompt, from the catalogue or from both.
    asked = [prompts.prompt(history) for history in histories(series(), 20, seed=8)]
    asked += [prompts.prompt(history) for history in histories(prompts, 20, seed=9)]
    expected, plain = one_by_one(Writer(body, end=END, longest=LONGEST), asked)
    references = References(trie_of(prompts))
    found, copying = one_by_one(CopyingWriter(open_forward(body), references, end=END, longest=LONGEST), asked)
    assert found == expected
    assert all(ours <= theirs for ours, theirs in zip(copying, plain, strict=True))
    assert sum(copying[:20]) < 0.7 * sum(plain[:20])


def test_a_batch_writes_what_each_prompt_alone_does() -> None:
    prompts, body = world(), backbone("llama")
    writer = CopyingWriter(open_forward(body), References(trie_of(prompts)), end=END, longest=LONGEST)
    asked = [prompts.prompt(history) for history in histories(series(), 20, seed=8)]
    assert [text.tolist() for text in writer.write(asked)] == [writer.write([ids])[0].tolist() for ids in asked]


def test_what_is_copied() -> None:
    """Worked by hand: a prompt of titles 2 3 4 | 2 3 5 6 behind token 0, END between them."""
    prompts = FakePrompts([[2, 3, 4], [2, 3, 5, 6], [7, 8, 9], [7, 8, 10], [7, 8, 9, 11]])
    prompt = prompts.prompt(np.array([0, 1]))
    assert prompt.tolist() == [0, 2, 3, 4, END, 2, 3, 5, 6, END]
    references = References(trie_of(prompts), copied=3, match=2)
    assert references.from_prompt(prompt, [2]).tolist() == [3, 5, 6]  # its last place
    assert references.from_prompt(prompt, [9, 3, 4]).tolist() == [END, 2, 3]  # two tokens match; 9 is too far back
    assert references.from_prompt(prompt, [9, 3]).tolist() == [5, 6, END]  # one does
    assert references.from_prompt(prompt, [9]).tolist() == []
    assert references.from_prompt(prompt, [END]).tolist() == [2, 3, 5]  # nothing follows the prompt's last token
    assert references.from_catalogue([7]).tolist() == [8, 9, END]  # two of three go on with 9
    assert references.from_catalogue([7, 8, 10]).tolist() == [END]
    assert references.from_catalogue([2, 3, 5]).tolist() == [6, END]
    assert references.from_catalogue([3]).tolist() == references.from_catalogue([2] * 9).tolist() == []
    liked = References(trie_of(prompts), copied=3, match=2, popularity=np.array([0, 0, 0, 9, 0]))
    assert liked.from_catalogue([7]).tolist() == [8, 10, END]


@cache
def opened(folder: Path):
    body = open_family("qwen3", folder)
    catalog = Catalog.from_titles(TITLES)
    return body, Prompts.compile(COMPACT, tokenizer(), catalog), catalog


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("qwen3")


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_its_lists_are_groundings_with_one_beam(folder: Path, gamma: float) -> None:
    body, prompts, catalog = opened(folder)
    rng = np.random.default_rng(0)
    popularity = rng.integers(0, 30, size=len(TITLES))
    past = [rng.integers(0, len(TITLES), size=size).astype(np.int32) for size in (1, 4, 2, 7, 3)]
    requests = Requests(past, exclude=[history[:1] for history in past])
    options = {"popularity": popularity, "gamma": gamma, "batch_size": 2}
    found = Reference(body, prompts, catalog, **options).rank(requests, 10)
    expected = Grounding(body, prompts, catalog, beams=1, **options).rank(requests, 10)
    assert (found.rows == expected.rows).all() and (found.scores == expected.scores).all()


def test_the_contract_of_every_decoder(folder: Path) -> None:
    body, prompts, catalog = opened(folder)
    rng = np.random.default_rng(1)
    requests = Requests([rng.integers(0, len(TITLES), size=3).astype(np.int32) for _ in range(4)])
    reference = Reference(body, prompts, catalog, batch_size=3)
    check_decoder(reference, requests, len(TITLES), tolerance=1e-4)
    assert (reference.name, reference.needs_thoughts) == ("reference", False)


def test_impossible_options_are_refused(folder: Path) -> None:
    body, prompts, catalog = opened(folder)
    for options in ({"copied": 0}, {"match": 0}, {"batch_size": 0}, {"gamma": -1.0}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            Reference(body, prompts, catalog, **options)
