"""Which samples each step sees. The plan is a function of (data, seed, step): a resumed run sees the same ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from l2d.errors import ConfigError
from l2d.interactions import Examples, chains
from l2d.packing import Pack, pack
from l2d.prompts import Prompts

GROUP = 16
"""Samples of one user that stay together in a pack when histories are used as given."""


@dataclass(frozen=True)
class Sample:
    """One tuning sample: rows of a history, and the row that came next."""

    history: NDArray[np.int32]
    target: int


Group = list[Sample]


@dataclass
class TuningPlan:
    """Cuts training data into the batches of a whole run.

    With `window` 0 the samples are the given examples. Otherwise the users' sequences are cut into windows of that many
    items at an offset that is drawn anew each epoch, and every title of a window is a target whose history is what
    stands before it in the window: the same targets each epoch, under histories of changing length.

    Args:
        examples: the training split.
        prompts: compiled prompts.
        tokens: pack nodes in a batch, about.
        pack_tokens: most nodes in a pack.
        window: items of a window, 0 for the given histories.
        seed: of the order and the offsets.
        branching: whether packs may branch. Without, for families that cannot be packed, a line holds one sample, or
            the samples of a group where each extends the one before it: plain causal attention is right for both.
    """

    examples: Examples
    prompts: Prompts
    tokens: int
    pack_tokens: int
    window: int
    seed: int
    branching: bool = True
    _chains: list[NDArray[np.int32]] = field(init=False, default_factory=list)
    _epoch: tuple[int, list[list[Group]]] = field(init=False, default=(-1, []))

    def __post_init__(self) -> None:
        if self.window == 1 or self.window < 0:
            raise ConfigError("impossible tuning window", got=self.window, expected="0 (given histories) or at least 2")
        if self.window:
            self._chains = chains(self.examples)
        groups = self._groups(0)
        # Offsets move the number of windows from epoch to epoch; no epoch has fewer than this.
        fewest = sum(-(-len(chain) // self.window) for chain in self._chains) if self.window else len(groups)
        self.batches_per_epoch = max(1, min(fewest, round(self._cost(groups) / self.tokens)))

    def batch(self, index: int) -> list[Pack]:
        """The packs of one batch. Batch `index` belongs to epoch `index // batches_per_epoch`."""
        epoch, place = divmod(index, self.batches_per_epoch)
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self._divide(self._groups(epoch), epoch))
        groups = self._epoch[1][place]
        if not self.branching:
            return [line for group in groups for line in self.lines(group)]
        return self.packs([sample for group in groups for sample in group])

    def packs(self, samples: list[Sample]) -> list[Pack]:
        """Packs of samples: each a prompt and its answer, whose tokens alone carry weight."""
        joined, starts = self._sequences(samples)
        return pack(joined, self.pack_tokens, starts)

    def lines(self, samples: list[Sample]) -> list[Pack]:
        """Packs without a branch: all samples in one where they extend each other, else a pack for each."""
        joined, starts = self._sequences(samples)
        (together,) = pack(joined, sum(map(len, joined)), starts)
        if (together.end == len(together)).all():
            return [together]
        return [alone for ids, start in zip(joined, starts, strict=True) for alone in pack([ids], len(ids), [start])]

    def _sequences(self, samples: list[Sample]) -> tuple[list[NDArray[np.int32]], list[int]]:
        """Token ids of prompt + answer of each sample, and where its answer begins."""
        heads = [self.prompts.prompt(sample.history) for sample in samples]
        answers = [self.prompts.answer(sample.target) for sample in samples]
        joined = [np.concatenate(parts) for parts in zip(heads, answers, strict=True)]
        return joined, [len(head) for head in heads]

    def _groups(self, epoch: int) -> list[Group]:
        if not self.window:
            return _given_groups(self.examples)
        generator = np.random.default_rng([self.seed, epoch, 1])
        offsets = generator.integers(1, self.window + 1, size=len(self._chains))
        groups = []
        for chain, offset in zip(self._chains, offsets.tolist(), strict=True):
            cuts = [0, *range(offset if offset < len(chain) else len(chain), len(chain), self.window), len(chain)]
            groups += [_window(chain[a:b]) for a, b in pairwise(cuts) if b > a]
        return groups

    def _divide(self, groups: list[Group], epoch: int) -> list[list[Group]]:
        """Shuffles the groups and cuts them into batches of nearly equal tokens, none of them empty."""
        order = np.random.default_rng([self.seed, epoch, 2]).permutation(len(groups))
        costs = np.array([self._cost([groups[index]]) for index in order], dtype=np.float64)
        middle = np.cumsum(costs) - costs / 2
        wanted = np.searchsorted(middle / costs.sum() * self.batches_per_epoch, np.arange(self.batches_per_epoch))
        # A group larger than a batch would leave the next one empty: each begins at least one group after the last.
        places = np.arange(self.batches_per_epoch)
        starts = np.minimum(np.maximum.accumulate(wanted - places) + places, len(groups) - places[::-1] - 1)
        bounds = [*starts.tolist(), len(groups)]
        return [[groups[index] for index in order[a:b]] for a, b in pairwise(bounds)]

    def _cost(self, groups: list[Group]) -> float:
        """Pack nodes of groups, about.

        A window has each title once and the template's own tokens per sample. Given histories of one user need not
        begin alike, so theirs are laid out and counted.
        """
        if not self.window:
            joined, _ = self._sequences([sample for group in groups for sample in group])
            return float(sum(map(len, pack(joined, self.pack_tokens) if self.branching else joined)))
        per_sample = len(self.prompts.suffix) + 1
        total = 0.0
        for group in groups:
            rows = np.unique(np.concatenate([[*sample.history.tolist(), sample.target] for sample in group]))
            starts = self.prompts.title_offsets
            total += float((starts[rows + 1] - starts[rows]).sum()) + per_sample * len(group)
        return total


def _window(rows: NDArray[np.int32]) -> Group:
    return [Sample(rows[:place], int(rows[place])) for place in range(len(rows))]


def _given_groups(examples: Examples) -> list[Group]:
    groups: list[Group] = []
    users = examples.user
    previous_user = -1
    for index in np.argsort(users, kind="stable").tolist():
        history, target = examples[index]
        if users[index] != previous_user or len(groups[-1]) == GROUP:
            groups.append([])
        groups[-1].append(Sample(history, target))
        previous_user = int(users[index])
    return groups
