"""Beam search over the catalogue's titles: what latent decoding is compared with, made as strong as we can.

A hypothesis is a node of the token trie; its score is the sum of the log-probabilities of its tokens, end token
included, over the whole vocabulary (the trie forbids, it does not renormalise) and without length normalisation. One
step is one *choice* and not one token: tokens that the trie forces are read together with the choice before them in
the same forward pass. Scores only fall along a path, so a hypothesis below the k-th best finished item is dropped,
and the search ends when none is left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from l2d.backbone import Backbone, PackProbe
from l2d.catalog import Catalog
from l2d.errors import ConfigError
from l2d.language.forward import open_forward
from l2d.language.search import Search
from l2d.language.trie import Trie
from l2d.ranking import NOTHING, Rankings, Requests, Rows


class PromptsAndAnswers(Protocol):
    """What the search needs of `l2d.prompts.Prompts`."""

    def prompt(self, history: Rows) -> NDArray[np.int32]:
        """Token ids of a history's prompt."""
        ...

    def answer(self, row: int) -> NDArray[np.int32]:
        """Token ids of a row's title and one end token."""
        ...


@dataclass(frozen=True)
class BeamStats:
    """What one call of `rank` cost, for explaining speed ratios. Arrays have shape (requests,).

    Args:
        forward_passes: forward passes of the model, over all batches, prompts included.
        passes: forward passes that each request took part in; the first reads its prompt.
        prompt_tokens: tokens of each prompt.
        answer_tokens: answer tokens read for each request, over all its hypotheses.
    """

    forward_passes: int
    passes: NDArray[np.int64]
    prompt_tokens: NDArray[np.int64]
    answer_tokens: NDArray[np.int64]


class Beam:
    """Decodes titles from the tuned backbone by beam search, constrained to the catalogue.

    Rows whose titles have the same tokens share a leaf and a score and are listed in row order. Filters act before
    the search: the trie is restricted to what may be recommended, so a list is short only where candidates are.
    A search holds its keys and values in `forward`: one `rank` at a time.

    Args:
        backbone: the tuned backbone.
        prompts: its compiled prompts.
        catalog: the items; must be those of the prompts.
        beams: hypotheses kept per step. A list longer than that is searched with k of them.
        batch_size: requests searched together.
        probe: what the backbone's opening probe found; None probes now.

    Raises:
        ConfigError: beams or batch_size below 1.
        DataError: one item's answer is the beginning of another's.
    """

    name = "beam"
    needs_thoughts = False

    def __init__(
        self,
        backbone: Backbone,
        prompts: PromptsAndAnswers,
        catalog: Catalog,
        *,
        beams: int = 10,
        batch_size: int = 8,
        probe: PackProbe | None = None,
    ) -> None:
        for name, value in (("beams", beams), ("batch_size", batch_size)):
            if value < 1:
                raise ConfigError(f"{name} is too small", got=value, expected="at least 1")
        self.prompts = prompts
        self.beams = beams
        self.batch_size = batch_size
        self.trie = Trie.build(prompts.answer, len(catalog))
        self.forward = open_forward(backbone, probe)
        self.stats: BeamStats | None = None

    def rank(self, requests: Requests, k: int, progress: Callable[[int, int], None] | None = None) -> Rankings:
        """The k best titles of each request by their log-probability; what it cost is in `stats` afterwards.

        Args:
            requests: histories with their filters; thoughts are not read.
            k: list length. Where it exceeds `beams`, k hypotheses are kept.
            progress: called with (requests done, all).

        Raises:
            ConfigError: k below 1.
        """
        if k < 1:
            raise ConfigError("k is too small", got=k, expected="at least 1")
        prompts = [self.prompts.prompt(history) for history in requests.histories]
        order = np.argsort([-len(prompt) for prompt in prompts], kind="stable")
        rows = np.full((len(prompts), k), NOTHING, dtype=np.int32)
        scores = np.full((len(prompts), k), -np.inf, dtype=np.float32)
        passes, answer_tokens = np.zeros((2, len(prompts)), dtype=np.int64)
        total = 0
        for begin in range(0, len(order), self.batch_size):
            batch = order[begin : begin + self.batch_size]
            searches = [self._search(requests, int(index), k) for index in batch]
            total += self._run(searches, [prompts[index] for index in batch])
            for index, search in zip(batch, searches, strict=True):
                rows[index], scores[index] = search.best()
                passes[index], answer_tokens[index] = search.passes, search.tokens_read
            if progress is not None:
                progress(begin + len(batch), len(order))
        prompt_tokens = np.array([len(prompt) for prompt in prompts], dtype=np.int64)
        self.stats = BeamStats(total, passes, prompt_tokens, answer_tokens)
        return Rankings(rows, scores)

    def _search(self, requests: Requests, index: int, k: int) -> Search:
        return Search(self.trie, requests.candidates(index, len(self.trie.leaf)), k, max(self.beams, k))

    @torch.inference_mode()
    def _run(self, searches: Sequence[Search], prompts: Sequence[NDArray[np.int32]]) -> int:
        """Carries searches to their ends, all in the same forward passes; returns how many passes it took."""
        live = [place for place, search in enumerate(searches) if search.live]
        if not live:
            return 0
        logits, passes = self.forward.start([prompts[place] for place in live]), 1
        starting = {place: line for line, place in enumerate(live)}
        while True:
            _advance([searches[place] for place in live], logits)
            live = [place for place in live if searches[place].live]
            if not live:
                return passes
            logits = self.forward.extend([chain for place in live for chain in searches[place].chains(starting[place])])
            passes += 1


def _advance(searches: Sequence[Search], logits: torch.Tensor) -> None:
    """Hands each search its log-probabilities, fetched from the logits in one gather."""
    lines, tokens, sizes, offset = [], [], [], 0
    for search in searches:
        wanted, ids = search.wanted()
        lines.append(wanted + offset)
        tokens.append(ids)
        sizes.append(len(ids))
        offset += search.lines
    found = log_probabilities(logits, np.concatenate(lines), np.concatenate(tokens))
    for search, part in zip(searches, np.split(found, np.cumsum(sizes)[:-1]), strict=True):
        search.advance(part)


def log_probabilities(
    logits: torch.Tensor, lines: NDArray[np.int64], tokens: NDArray[np.int64], block: int = 64
) -> NDArray[np.float64]:
    """Log-softmax, computed in fp32, at pairs of line and token.

    Args:
        logits: Shape: (lines, vocabulary).
        lines: Shape: (pairs,).
        tokens: Shape: (pairs,).
        block: lines cast to fp32 at a time: 64 lines of a 150,000-token vocabulary are 38 MB.
    """
    total = torch.cat([part.float().logsumexp(dim=-1) for part in logits.split(block)])
    places = torch.from_numpy(lines).to(logits.device)
    return (logits[places, torch.from_numpy(tokens).to(logits.device)].float() - total[places]).double().cpu().numpy()
