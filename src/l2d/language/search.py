"""The beam search of one request, without the model: which tokens to read next, which scores to ask for, what stays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from l2d.language.forward import PROMPT, Chain
from l2d.language.trie import Children, Leaves, Trie
from l2d.ranking import NOTHING, Rows


class Hypothesis(NamedTuple):
    """A node of the trie that is still searched.

    Args:
        parent: place of the hypothesis it continues, among those of the step before.
        low, high: its places among the request's leaves.
        scored: tokens in its score; the last of them and all up to `depth` are read in the next pass.
        depth: tokens read after that pass: the next choice.
        score: sum of the log-probabilities of the scored tokens.
    """

    parent: int
    low: int
    high: int
    scored: int
    depth: int
    score: float


class Search:
    """The beam search of one request, without the model.

    Args:
        trie: the catalogue's trie.
        allowed: rows that may be recommended. Shape: (items,).
        k: list length.
        beams: hypotheses kept per step.
    """

    def __init__(self, trie: Trie, allowed: NDArray[np.bool_], k: int, beams: int) -> None:
        self.trie = trie
        self.allowed = allowed
        self.k = k
        self.beams = beams
        self.leaves: Leaves = trie.leaves(allowed)
        self.ends = trie.lengths
        """Tokens after which an answer's score is known: all of them. Shape: (leaves,)."""
        self.live = [Hypothesis(PROMPT, 0, len(self.leaves), 0, 0, 0.0)] if len(self.leaves) else []
        self.rows: Rows = np.zeros(0, dtype=np.int32)
        self.scores = np.zeros(0)
        self._children: list[Children] = []

    @property
    def lines(self) -> int:
        """Lines of logits that the pass just made gave this request."""
        return sum(_tail(hypothesis) for hypothesis in self.live)

    def chains(self, request: int) -> list[Chain]:
        """The tokens to read in the next pass."""
        chains = []
        for hypothesis in self.live:
            ids = self.trie.tokens[self.leaves[hypothesis.low]]
            read = hypothesis.scored - 1
            chains.append(Chain(request, hypothesis.parent, ids[:read], ids[read : hypothesis.depth]))
        return chains

    def wanted(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Which log-probabilities the last pass should give: per hypothesis the forced tokens', then the choices'.

        Returns:
            Lines of this request's logits, and tokens. Shape: (pairs,) each.
        """
        lines: list[NDArray[np.int64]] = []
        tokens: list[NDArray[np.integer]] = []
        start = 0
        self._children = [self.trie.children(self.leaves, h.low, h.high, h.depth) for h in self.live]
        for hypothesis, children in zip(self.live, self._children, strict=True):
            forced = self.trie.tokens[self.leaves[hypothesis.low], hypothesis.scored : hypothesis.depth]
            last = start + len(forced)
            lines += [np.arange(start, last), np.full(len(children.tokens), last, dtype=np.int64)]
            tokens += [forced, children.tokens]
            start = last + 1
        return np.concatenate(lines), np.concatenate(tokens).astype(np.int64)

    def advance(self, log_probabilities: NDArray[np.float64]) -> None:
        """Makes the step: finished continuations join the list, the best others live on.

        Args:
            log_probabilities: what `wanted` asked for. Shape: (pairs,).
        """
        scores: list[NDArray[np.float64]] = []
        start = 0
        for hypothesis, children in zip(self.live, self._children, strict=True):
            choice = start + hypothesis.depth - hypothesis.scored
            stop = choice + len(children.tokens)
            forced, chosen = log_probabilities[start:choice], log_probabilities[choice:stop]
            scores.append(self._grown(hypothesis, children, forced, chosen))
            start = stop
        depth = np.repeat([h.depth + 1 for h in self.live], [len(part) for part in scores])
        parent = np.repeat(np.arange(len(self.live)), [len(part) for part in scores])
        low = np.concatenate([children.low for children in self._children])
        high = np.concatenate([children.high for children in self._children])
        self._keep(parent, low, high, depth, np.concatenate(scores))

    def _keep(
        self,
        parent: NDArray[np.int64],
        low: NDArray[np.int64],
        high: NDArray[np.int64],
        depth: NDArray[np.int64],
        score: NDArray[np.float64],
    ) -> None:
        """Lists the continuations that are finished and keeps the best others. Shape: (continuations,) each."""
        done = self._ended(low, high, depth)
        self._finish(self.leaves[low[done]], score[done])
        best = np.flatnonzero(~done & (score >= self._bound()))
        best = best[np.argsort(-score[best], kind="stable")][: self.beams]
        kept = zip(*(column[best].tolist() for column in (parent, low, high, depth, score)), strict=True)
        self.live = [
            Hypothesis(place, first, behind, scored, self._reach(first, behind), total)
            for place, first, behind, scored, total in kept
        ]

    def _ended(self, low: NDArray[np.int64], high: NDArray[np.int64], depth: NDArray[np.int64]) -> NDArray[np.bool_]:
        return (high - low == 1) & (depth >= self.ends[self.leaves[low]])

    def _grown(
        self, hypothesis: Hypothesis, children: Children, forced: NDArray[np.float64], chosen: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Scores of a hypothesis' continuations. Shape: (children,).

        Args:
            hypothesis: what is continued.
            children: its continuations.
            forced: log-probabilities of its tokens from `scored` to `depth`.
            chosen: log-probability of each child's token. Shape: (children,).
        """
        grown: NDArray[np.float64] = hypothesis.score + forced.sum() + chosen
        return grown

    def _reach(self, low: int, high: int) -> int:
        """Depth of the next choice below a node; for a single leaf its last token that counts."""
        return int(self.ends[self.leaves[low]]) - 1 if high - low == 1 else self.trie.reach(self.leaves, low, high)

    def _finish(self, leaves: Leaves, scores: NDArray[np.float64]) -> None:
        found = [self.trie.rows_of(leaf) for leaf in leaves]
        rows = np.concatenate([self.rows, *found])
        scores = np.concatenate([self.scores, np.repeat(scores, [len(part) for part in found])])
        mine = self.allowed[rows]
        rows, scores = rows[mine], scores[mine]
        # Compared as they will be listed, in float32, so that the rule for ties is that of every ranking.
        order = np.lexsort((rows, -scores.astype(np.float32)))[: self.k]
        self.rows, self.scores = rows[order], scores[order]

    def _bound(self) -> float:
        """A path below this cannot enter the list any more: tokens to come can only lower its score."""
        return float(self.scores[-1]) if len(self.scores) == self.k else -np.inf

    def best(self) -> tuple[Rows, NDArray[np.float32]]:
        """The list, `NOTHING` and -inf behind its end. Shape: (k,) each."""
        rows, scores = np.full(self.k, NOTHING, dtype=np.int32), np.full(self.k, -np.inf, dtype=np.float32)
        rows[: len(self.rows)], scores[: len(self.rows)] = self.rows, self.scores
        return rows, scores


def _tail(hypothesis: Hypothesis) -> int:
    return hypothesis.depth - hypothesis.scored + 1
