"""D3 (arXiv 2406.14900): beam search over the catalogue whose score does not favour titles that are easy to spell.

Two changes to beam search, which stays what it is otherwise:

- *No length normalisation and no ghost tokens.* A token that the catalogue forces, because its node in the trie has
  one child, says nothing about taste. Its log-probability is left out of the score, and so nothing behind the last
  real choice needs to be read: such a title is finished there, without another forward pass.
- *A text-free assistant.* Each counted token scores `alpha` x the backbone's log-probability + (1 - `alpha`) x that of
  the assistant, a recommender of items without text. At a node the assistant's probability of a token is the share of
  the node's probability mass that lies below the token, so that over a whole title the shares multiply to the
  probability of the item.

The backbone's log-probabilities are those over the whole vocabulary, as in beam search: the trie forbids and does not
renormalise. Renormalised over the children of each node, ghost tokens would count nothing by themselves, but a node
would also hide how unlikely the backbone finds all its children.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from l2d.backbone import Backbone, PackProbe
from l2d.catalog import Catalog
from l2d.errors import ConfigError, InternalError
from l2d.language.beam import Beam, PromptsAndAnswers
from l2d.language.search import Hypothesis, Search
from l2d.language.trie import Children, Trie
from l2d.ranking import Requests, Rows


class Assistant(Protocol):
    """A recommender that knows no text."""

    def item_log_probabilities(self, histories: Sequence[Rows]) -> NDArray[np.floating]:
        """Log-probability of each item to come next, -inf for items it does not know. Shape: (histories, items)."""
        ...


class D3(Beam):
    """Beam search without length normalisation and ghost tokens, optionally mixed with a text-free assistant.

    Which tokens are ghosts is a matter of the whole catalogue: excluding rows changes no title's score. Rows whose
    titles have the same tokens share a score, the assistant's mass of them all included, and are listed in row order.

    Args:
        backbone: the tuned backbone.
        prompts: its compiled prompts.
        catalog: the items; must be those of the prompts.
        assistant: the text-free recommender; None for none.
        alpha: weight of the backbone, 1 - alpha that of the assistant; 1 where there is none.
        beams: hypotheses kept per step. A list longer than that is searched with k of them.
        batch_size: requests searched together.
        probe: what the backbone's opening probe found; None probes now.

    Raises:
        ConfigError: alpha outside 0 to 1, or below 1 without an assistant.
    """

    name = "d3"

    def __init__(
        self,
        backbone: Backbone,
        prompts: PromptsAndAnswers,
        catalog: Catalog,
        *,
        assistant: Assistant | None = None,
        alpha: float | None = None,
        beams: int = 10,
        batch_size: int = 8,
        probe: PackProbe | None = None,
    ) -> None:
        alpha = (1.0 if assistant is None else 0.5) if alpha is None else alpha
        if not 0 <= alpha <= 1:
            raise ConfigError("alpha is out of range", got=alpha, expected="0 to 1")
        if assistant is None and alpha < 1:
            raise ConfigError("alpha below 1 needs an assistant", got=alpha, cure="give an assistant or alpha 1")
        super().__init__(backbone, prompts, catalog, beams=beams, batch_size=batch_size, probe=probe)
        self.assistant = assistant
        self.alpha = alpha
        self.choices = Choices.of(self.trie)

    def _searches(self, requests: Requests, k: int) -> list[Search]:
        mass = self._assistant_mass(requests)
        with self.meter.phase("search"):
            return [
                D3Search(
                    self.trie,
                    requests.candidates(index, len(self.trie.leaf)),
                    k,
                    max(self.beams, k),
                    self.choices,
                    self.alpha,
                    None if mass is None else mass[index],
                )
                for index in range(len(requests))
            ]

    def _assistant_mass(self, requests: Requests) -> NDArray[np.float64] | None:
        """Log of the assistant's probability of each leaf for a batch. Shape: (requests, leaves)."""
        if self.assistant is None:
            return None
        with self.meter.phase("decode"):  # a later pass, if not one of the backbone
            items = np.asarray(self.assistant.item_log_probabilities(requests.histories), dtype=np.float64)
        known = np.isfinite(items)
        if items.shape != (len(requests), len(self.trie.leaf)) or not (known | np.isneginf(items)).all():
            raise InternalError("the assistant must give a log-probability to each item", got=items.shape)
        with self.meter.phase("search"):
            # An item that the assistant does not know is as good as the worst that it knows: left to the backbone.
            items = np.where(known, items, np.where(known, items, 0.0).min(axis=1, keepdims=True))
            mass = np.logaddexp.reduceat(items[:, self.trie.rows], self.trie.offsets[:-1], axis=1)
            return np.asarray(mass - np.logaddexp.reduce(mass, axis=1, keepdims=True))


class Choices(NamedTuple):
    """Which tokens of the catalogue's answers are a choice. The others are ghosts.

    Args:
        counted: by leaf and depth. Shape: (leaves, longest).
        ends: tokens of each leaf up to its last choice, that one included. Shape: (leaves,).
    """

    counted: NDArray[np.bool_]
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, trie: Trie) -> Choices:
        """Finds the nodes with several children, depth by depth."""
        counted = np.zeros(trie.tokens.shape, dtype=bool)
        starts = np.zeros(len(trie), dtype=bool)  # where a node's run of lines begins; the first begins by itself
        for depth in range(trie.tokens.shape[1]):
            column = trie.tokens[:, depth]
            changes = np.diff(column, prepend=column[:1]) != 0
            node = np.cumsum(starts)
            # Sorted lines: a node has several children exactly where the token changes inside its run.
            counted[:, depth] = (np.bincount(node, weights=changes & ~starts) > 0)[node]
            starts |= changes
        depths = np.arange(1, trie.tokens.shape[1] + 1)
        return cls(counted, (counted * depths).max(axis=1))


class D3Search(Search):
    """The search of one request.

    Args:
        trie: the catalogue's trie.
        allowed: rows that may be recommended. Shape: (items,).
        k: list length.
        beams: hypotheses kept per step.
        choices: the tokens that count.
        alpha: weight of the backbone's log-probabilities.
        mass: log of the assistant's probability of each leaf; None for no assistant. Shape: (leaves,).
    """

    def __init__(
        self,
        trie: Trie,
        allowed: NDArray[np.bool_],
        k: int,
        beams: int,
        choices: Choices,
        alpha: float,
        mass: NDArray[np.float64] | None = None,
    ) -> None:
        super().__init__(trie, allowed, k, beams)
        self.ends = choices.ends
        self.counted = choices.counted
        self.alpha = alpha
        self.mass = None if mass is None else mass[self.leaves]
        if self.mass is not None and self.live:
            # The share of what may be listed at all: so filters do not move the scores of what is left.
            allowed_mass = float(np.logaddexp.reduce(self.mass))
            self.live = [self.live[0]._replace(score=(1 - alpha) * allowed_mass)]

    def _grown(
        self, hypothesis: Hypothesis, children: Children, forced: NDArray[np.float64], chosen: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        counted = self.counted[self.leaves[hypothesis.low], hypothesis.scored : hypothesis.depth + 1]
        read = forced[counted[:-1]].sum() + (chosen if counted[-1] else np.zeros_like(chosen))
        grown: NDArray[np.float64] = hypothesis.score + self.alpha * read
        if self.mass is not None:
            below = np.logaddexp.reduceat(self.mass[hypothesis.low : hypothesis.high], children.low - hypothesis.low)
            grown = grown + (1 - self.alpha) * (below - np.logaddexp.reduce(below))
        return grown
