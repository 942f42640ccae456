"""Beam search that takes several confident tokens of a title in one pass, in the spirit of lexical unit decoding.

Lexical unit decoding (arXiv 2405.15208) accepts a run of tokens at once while the model is sure of each. Here the trie
bounds what can come, which makes the run cheap to guess. A pass reads, for each hypothesis,

1. the tokens that lead to its next choice, as `Beam` does, and
2. a draft below it: the path that most of the catalogue takes (by popularity, where it is given), as long as each of
   its choices leaves more than half of the node's weight, `drafted` tokens at most.

Then the hypothesis walks down the draft. At a choice, the child to which the model gives at least `confidence` of the
children's probability is taken alone; if the draft went there, the walk goes on in the same pass. At the first choice
where no child is so sure, or behind the last token read, the hypothesis branches and its continuations compete for the
`beams` places as in `Beam`.

The loss: siblings of a child taken alone are given up, but for titles that end there, which cost nothing and are
listed. No child is taken alone before the hypotheses and the titles listed are as many as `beams`: so a list is short
only where candidates are, and a search as wide as the catalogue is exact. No child can have more than all of the
probability, so with a `confidence` above 1 this is `Beam`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from l2d.backbone import Backbone, PackProbe
from l2d.catalog import Catalog
from l2d.errors import ConfigError
from l2d.language.beam import Beam, PromptsAndAnswers
from l2d.language.forward import PROMPT, Chain
from l2d.language.prior import Prior, leaf_weights
from l2d.language.search import Hypothesis, Search
from l2d.language.trie import Children, Trie
from l2d.ranking import Requests

DECIDED = 0.5
"""Share of a node's weight that a child must exceed for the draft to go on there."""


class Unit(Beam):
    """Beam search over the catalogue's titles that accepts runs of confident tokens; lossy.

    Args:
        backbone: the tuned backbone.
        prompts: its compiled prompts.
        catalog: the items; must be those of the prompts.
        confidence: share of the children's probability from which a child is taken alone; above 1 for never.
        drafted: tokens read ahead of each hypothesis, at most.
        popularity: weight of each row in choosing drafts; None for the same. Shape: (items,).
        beams: hypotheses kept per step. A list longer than that is searched with k of them.
        batch_size: requests searched together.
        probe: what the backbone's opening probe found; None probes now.

    Raises:
        ConfigError: confidence not above 0, drafted below 0, popularity that does not weigh every row.
    """

    name = "unit"

    def __init__(
        self,
        backbone: Backbone,
        prompts: PromptsAndAnswers,
        catalog: Catalog,
        *,
        confidence: float = 0.5,
        drafted: int = 8,
        popularity: NDArray[np.floating] | NDArray[np.integer] | None = None,
        beams: int = 10,
        batch_size: int = 8,
        probe: PackProbe | None = None,
    ) -> None:
        if not confidence > 0:
            raise ConfigError("confidence is too small", got=confidence, expected="above 0; above 1 for plain beam")
        if drafted < 0:
            raise ConfigError("drafted is too small", got=drafted, expected="at least 0")
        super().__init__(backbone, prompts, catalog, beams=beams, batch_size=batch_size, probe=probe)
        self.confidence = confidence
        self.drafted = drafted if confidence <= 1 else 0
        self.weights = leaf_weights(self.trie, popularity)

    def _searches(self, requests: Requests, k: int) -> list[Search]:
        with self.meter.phase("search"):
            return [self._search(requests.candidates(index, len(self.trie.leaf)), k) for index in range(len(requests))]

    def _search(self, allowed: NDArray[np.bool_], k: int) -> Search:
        return UnitSearch(
            self.trie,
            allowed,
            k,
            max(self.beams, k),
            confidence=self.confidence,
            drafted=self.drafted,
            weights=self.weights,
        )


class Stop(NamedTuple):
    """A choice on the path that a pass reads below a hypothesis.

    Args:
        low, high: its places among the request's leaves.
        scored: answer tokens up to the child that leads here; those from there to `depth` are forced.
        depth: tokens before the choice.
        children: its continuations.
        onward: the child that the draft goes to; None behind the draft's end.
    """

    low: int
    high: int
    scored: int
    depth: int
    children: Children
    onward: int | None


class Grown(NamedTuple):
    """Continuations: the columns that `Search` keeps the best of. Shape: (continuations,) each.

    Args:
        after: place of the token behind which the continuation's own stands, as in `Chain`.
        low, high: its places among the request's leaves.
        depth: its tokens.
        score: sum of their log-probabilities.
    """

    after: NDArray[np.int64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    depth: NDArray[np.int64]
    score: NDArray[np.float64]

    def take(self, chosen: NDArray[np.bool_]) -> Grown:
        """Some of them."""
        after, low, high, depth, score = self
        return Grown(after[chosen], low[chosen], high[chosen], depth[chosen], score[chosen])


class UnitSearch(Search):
    """The search of one request. A hypothesis' `parent` is the place of a token, as `Chain.after`.

    Args:
        trie: the catalogue's trie.
        allowed: rows that may be recommended. Shape: (items,).
        k: list length.
        beams: hypotheses kept per step.
        confidence: share of the children's probability from which a child is taken alone.
        drafted: tokens read ahead of each hypothesis, at most.
        weights: weight of each leaf in choosing drafts. Shape: (leaves,).
    """

    def __init__(
        self,
        trie: Trie,
        allowed: NDArray[np.bool_],
        k: int,
        beams: int,
        *,
        confidence: float,
        drafted: int,
        weights: NDArray[np.float64],
    ) -> None:
        super().__init__(trie, allowed, k, beams)
        self.sure = math.log(confidence)
        self.drafted = drafted
        self.prior = Prior(self.leaves, weights)
        self._tokens = 0
        self._starts = [PROMPT]
        self._paths = [[self._stop(root, 0)] for root in self.live]

    @property
    def lines(self) -> int:
        """See `Search.lines`."""
        return sum(_tail(path) for path in self._paths)

    def chains(self, request: int) -> list[Chain]:
        """See `Search.chains`."""
        self._paths = [self._path(hypothesis) for hypothesis in self.live]
        self._starts, chains = [], []
        for hypothesis, path in zip(self.live, self._paths, strict=True):
            ids = self.trie.tokens[self.leaves[path[-1].low]]
            read = hypothesis.scored - 1
            chains.append(Chain(request, PROMPT, ids[:read], ids[read : path[-1].depth], hypothesis.parent))
            self._starts.append(self._tokens)
            self._tokens += len(chains[-1].tokens)
        return chains

    def _path(self, hypothesis: Hypothesis) -> list[Stop]:
        """The choices below a hypothesis, along the draft; the first is its own."""
        path = [self._stop(hypothesis, hypothesis.depth + self.drafted)]
        while path[-1].onward is not None:
            above, child = path[-1], path[-1].onward
            low, high = int(above.children.low[child]), int(above.children.high[child])
            below = Hypothesis(PROMPT, low, high, above.depth + 1, self._reach(low, high), 0.0)
            path.append(self._stop(below, hypothesis.depth + self.drafted))
        return path

    def _stop(self, hypothesis: Hypothesis, furthest: int) -> Stop:
        """The choice of a hypothesis; the draft goes on to its heaviest child where that is read by `furthest`."""
        _, low, high, scored, depth, _ = hypothesis
        children = self.trie.children(self.leaves, low, high, depth)
        child, share = self.prior.heaviest(children)
        first, behind = int(children.low[child]), int(children.high[child])
        goes_on = not self._ended(*(np.array([place]) for place in (first, behind, depth + 1)))[0]
        drafted = goes_on and share > DECIDED and self._reach(first, behind) <= furthest
        return Stop(low, high, scored, depth, children, child if drafted else None)

    def wanted(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """See `Search.wanted`: for each choice on each path the forced tokens before it, then its children."""
        lines: list[NDArray[np.int64]] = []
        tokens: list[NDArray[np.integer]] = []
        start = 0
        for path in self._paths:
            for stop in path:
                choice = start + stop.depth - path[0].scored
                forced = self.trie.tokens[self.leaves[stop.low], stop.scored : stop.depth]
                lines += [np.arange(choice - len(forced), choice), np.full(len(stop.children.tokens), choice)]
                tokens += [forced, stop.children.tokens]
            start += _tail(path)
        return np.concatenate(lines).astype(np.int64), np.concatenate(tokens).astype(np.int64)

    def advance(self, log_probabilities: NDArray[np.float64]) -> None:
        """See `Search.advance`."""
        grown: list[Grown] = []
        start = 0
        for hypothesis, path, first in zip(self.live, self._paths, self._starts, strict=True):
            stop = start + sum(_pairs(choice) for choice in path)
            grown += self._walk(hypothesis, path, first, log_probabilities[start:stop])
            start = stop
        self._keep(*(np.concatenate(columns) for columns in zip(*grown, strict=True)))

    def _walk(self, hypothesis: Hypothesis, path: list[Stop], first: int, values: NDArray[np.float64]) -> list[Grown]:
        """Takes the sure steps; returns the continuations at the end, and titles that end on the way."""
        score = hypothesis.score
        found: list[Grown] = []
        crowded = len(self.live) + len(self.rows) >= self.beams
        for stop in path:
            forced, chosen, values = np.split(values, np.cumsum([stop.depth - stop.scored, len(stop.children.tokens)]))
            grown = _grow(stop, first + stop.depth - hypothesis.scored, score + forced.sum() + chosen)
            sure = int(np.argmax(chosen))
            if not crowded or chosen[sure] - np.logaddexp.reduce(chosen) < self.sure:
                return [*found, grown]
            ended = self._ended(grown.low, grown.high, grown.depth)
            onward = sure == stop.onward
            ended[sure] = not onward  # then it is the continuation
            found.append(grown.take(ended))
            if not onward:
                break
            score = float(grown.score[sure])
        return found


def _grow(stop: Stop, after: int, scores: NDArray[np.float64]) -> Grown:
    _, low, high = stop.children
    same = np.ones(len(low), dtype=np.int64)
    return Grown(after * same, low, high, (stop.depth + 1) * same, scores)


def _tail(path: list[Stop]) -> int:
    """Lines of logits that a path's pass gives: the last token that was scored, and all behind it."""
    return path[-1].depth - path[0].scored + 1


def _pairs(stop: Stop) -> int:
    return stop.depth - stop.scored + len(stop.children.tokens)
