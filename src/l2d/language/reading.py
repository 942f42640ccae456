"""What one model says along the trie, read ahead of the search: the part that drafting and verifying share.

A hypothesis needs its node's *reading*: the log-probabilities of the tokens that lead to its choice and of the choices.
Readings belong to the node and the prompt alone, not to when or why the node was read. So a search that takes its
steps from readings makes the same steps as one that asks the model each time, whatever else was read beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from l2d.costs import Meter
from l2d.language.beam import log_probabilities
from l2d.language.forward import PROMPT, Chain, Forward
from l2d.language.search import Hypothesis, Search

Node = tuple[int, int]
"""A choice of one request's trie: the first of its leaves, and the depth of the choice."""

Reading = NDArray[np.float64]


def node_of(hypothesis: Hypothesis) -> Node:
    """The choice at which a hypothesis stands."""
    return hypothesis.low, hypothesis.depth


@dataclass
class Course:
    """One request's search and the way to every node that it or its drafts came to.

    Args:
        line: place of the request in `Forward.start`.
        search: the search that decides.
        parents: the node before each node, and the hypothesis that stands there. A property of the trie: searches that
            disagree about scores agree about it.
    """

    line: int
    search: Search
    parents: dict[Node, Hypothesis | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.parents |= {node_of(root): None for root in self.search.live}

    def step(self, search: Search, readings: dict[Node, Reading]) -> None:
        """Takes one step of this request's search, or of a draft of it, from the readings of all its hypotheses."""
        before = search.live
        search.wanted()  # notes the choices that `advance` decides between
        search.advance(np.concatenate([readings[node_of(hypothesis)] for hypothesis in before]))
        for hypothesis in search.live:
            self.parents[node_of(hypothesis)] = before[hypothesis.parent]


class Reader:
    """One model's readings for a batch of requests; no node is read twice.

    Args:
        forward: the model.
        meter: books its seconds; the calls are counted in `calls`.
    """

    def __init__(self, forward: Forward, meter: Meter) -> None:
        self.forward = forward
        self.meter = meter
        self.calls = 0

    def start(self, courses: Sequence[Course], prompts: Sequence[NDArray[np.int32]]) -> None:
        """Forgets everything and reads the prompts: the readings of the roots."""
        self.known: list[dict[Node, Reading]] = [{} for _ in courses]
        self._ends: list[dict[Node, int]] = [{} for _ in courses]
        self._tokens = [0] * len(courses)
        self.calls += 1
        with self.meter.phase("prefill"):
            logits = self.forward.start(prompts)
            self._note(logits, [(course, course.search.live[0]) for course in courses])
        for course in courses:
            self._ends[course.line][node_of(course.search.live[0])] = PROMPT

    def knows(self, course: Course, search: Search) -> bool:
        """Whether the next step of a search can be taken without the model."""
        known = self.known[course.line]
        return all(node_of(hypothesis) in known for hypothesis in search.live)

    def read(self, wanted: Sequence[tuple[Course, Sequence[Hypothesis]]]) -> None:
        """Reads, in one pass, the nodes of hypotheses that are not known yet and those above them; none, no pass.

        Args:
            wanted: every request that goes on, by line, also one that wants nothing now. Others are forgotten.
        """
        with self.meter.phase("search"):
            pairs = [(course, hypothesis) for course, some in wanted for hypothesis in self._unread(course, some)]
            chains = [self._chain(course, hypothesis) for course, hypothesis in pairs]
        if not chains:
            return
        self.calls += 1
        with self.meter.phase("decode"):
            self._note(self.forward.extend(chains, [course.line for course, _ in wanted]), pairs)

    def _unread(self, course: Course, hypotheses: Sequence[Hypothesis]) -> list[Hypothesis]:
        """What is not known of some hypotheses and of those before them, parents first."""
        known = self.known[course.line]
        found: dict[Node, Hypothesis] = {}
        for hypothesis in hypotheses:
            way: list[Hypothesis] = []
            above: Hypothesis | None = hypothesis
            while above is not None and node_of(above) not in known and node_of(above) not in found:
                way.append(above)
                above = course.parents[node_of(above)]
            found |= {node_of(passed): passed for passed in reversed(way)}
        return list(found.values())

    def _chain(self, course: Course, hypothesis: Hypothesis) -> Chain:
        ids = course.search.trie.tokens[course.search.leaves[hypothesis.low]]
        read = hypothesis.scored - 1
        above = course.parents[node_of(hypothesis)]
        assert above is not None, "the root is read with the prompt"
        after = self._ends[course.line][node_of(above)]
        self._tokens[course.line] += hypothesis.depth - read
        self._ends[course.line][node_of(hypothesis)] = self._tokens[course.line] - 1
        return Chain(course.line, PROMPT, ids[:read], ids[read : hypothesis.depth], after)

    def _note(self, logits: torch.Tensor, pairs: Sequence[tuple[Course, Hypothesis]]) -> None:
        """Takes the readings of a pass out of its logits, all in one gather."""
        lines, tokens, offset = [], [], 0
        for course, hypothesis in pairs:
            found, ids = asked(course.search, hypothesis)
            lines.append(found + offset)
            tokens.append(ids)
            offset += hypothesis.depth - hypothesis.scored + 1
        values = log_probabilities(logits, np.concatenate(lines), np.concatenate(tokens))
        parts = np.split(values, np.cumsum([len(ids) for ids in tokens])[:-1])
        for (course, hypothesis), part in zip(pairs, parts, strict=True):
            self.known[course.line][node_of(hypothesis)] = part


def asked(search: Search, hypothesis: Hypothesis) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The log-probabilities in a hypothesis' reading, in the order of `Search.wanted`: forced tokens, then choices.

    Returns:
        Lines of logits, counted from the hypothesis' first, and tokens. Shape: (pairs,) each.
    """
    children = search.trie.children(search.leaves, hypothesis.low, hypothesis.high, hypothesis.depth)
    forced = search.trie.tokens[search.leaves[hypothesis.low], hypothesis.scored : hypothesis.depth]
    lines = np.concatenate([np.arange(len(forced)), np.full(len(children.tokens), len(forced))])
    return lines.astype(np.int64), np.concatenate([forced, children.tokens]).astype(np.int64)
