"""Beam search over the catalogue's titles: what latent decoding is compared with, made as strong as we can.

A hypothesis is a node of the token trie; its score is the sum of the log-probabilities of its tokens, end token
included, over the whole vocabulary (the trie forbids, it does not renormalise) and without length normalisation. One
step is one *choice* and not one token: tokens that the trie forces are read together with the choice before them in
the same forward pass. Scores only fall along a path, so a hypothesis below the k-th best finished item is dropped,
and the search ends when none is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from l2d.backbone import Backbone, PackProbe
from l2d.catalog import Catalog
from l2d.costs import Meter, Phase
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

    Attributes:
        meter: seconds by phase and forward passes, running until who measures resets it.
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
        self.meter = Meter()

    def rank(self, requests: Requests, k: int, progress: Callable[[int, int], None] | None = None) -> Rankings:
        """The k best titles of each request by their log-probability.

        Args:
            requests: histories with their filters; thoughts are not read.
            k: list length. Where it exceeds `beams`, k hypotheses are kept.
            progress: called with (requests done, all).

        Raises:
            ConfigError: k below 1.
        """
        if k < 1:
            raise ConfigError("k is too small", got=k, expected="at least 1")
        with self.meter.phase("tokenise"):
            prompts = [self.prompts.prompt(history) for history in requests.histories]
        rows = np.full((len(prompts), k), NOTHING, dtype=np.int32)
        scores = np.full((len(prompts), k), -np.inf, dtype=np.float32)
        done = 0
        for batch in longest_first(prompts, self.batch_size):
            searches = self._searches(requests.take(batch), k)
            self._run(searches, [prompts[index] for index in batch])
            for index, search in zip(batch, searches, strict=True):
                rows[index], scores[index] = search.best()
            done += len(batch)
            if progress is not None:
                progress(done, len(prompts))
        return Rankings(rows, scores)

    def _searches(self, requests: Requests, k: int) -> list[Search]:
        """A fresh search for each request of a batch."""
        with self.meter.phase("search"):
            items, beams = len(self.trie.leaf), max(self.beams, k)
            return [Search(self.trie, requests.candidates(index, items), k, beams) for index in range(len(requests))]

    @torch.inference_mode()
    def _run(self, searches: Sequence[Search], prompts: Sequence[NDArray[np.int32]]) -> None:
        """Carries searches to their ends, all in the same forward passes."""
        live = [place for place, search in enumerate(searches) if search.live]
        if not live:
            return
        starting = {place: line for line, place in enumerate(live)}
        with self.meter.phase("prefill"):
            logits = self.forward.start([prompts[place] for place in live])
        phase: Phase = "prefill"
        while True:
            self.meter.model_calls += 1
            self._advance([searches[place] for place in live], logits, phase)
            live = [place for place in live if searches[place].live]
            if not live:
                return
            with self.meter.phase("search"):
                chains = [chain for place in live for chain in searches[place].chains(starting[place])]
            with self.meter.phase("decode"):
                logits = self.forward.extend(chains)
            phase = "decode"

    def _advance(self, searches: Sequence[Search], logits: torch.Tensor, phase: Phase) -> None:
        """Hands each search its log-probabilities, fetched from the logits in one gather: the end of the pass."""
        with self.meter.phase("search"):  # on a GPU while the kernels of the pass still run
            pairs = [search.wanted() for search in searches]
            offsets = np.cumsum([0, *(search.lines for search in searches)])
            lines = np.concatenate([lines + offset for (lines, _), offset in zip(pairs, offsets, strict=False)])
            tokens = np.concatenate([tokens for _, tokens in pairs])
        with self.meter.phase(phase):
            found = log_probabilities(logits, lines, tokens)
        with self.meter.phase("search"):
            stops = np.cumsum([len(tokens) for _, tokens in pairs])[:-1]
            for search, part in zip(searches, np.split(found, stops), strict=True):
                search.advance(part)


def longest_first(prompts: Sequence[NDArray[np.int32]], size: int) -> Iterator[list[int]]:
    """Places of prompts in batches of similar length, so that little is padded; the longest first."""
    order = np.argsort([-len(prompt) for prompt in prompts], kind="stable").tolist()
    for begin in range(0, len(order), size):
        yield order[begin : begin + size]


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
