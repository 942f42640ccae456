"""Catalogues of token ids, tiny backbones with opinions on them, and plain searches to hold decoders against."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
import transformers

from l2d.backbone import Backbone
from l2d.catalog import Catalog
from l2d.language.forward import Chain, Forward
from l2d.ranking import NOTHING

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

    end_id = END

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
