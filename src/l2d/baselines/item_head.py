"""item-head: a softmax over items on frozen thoughts, the linear peer of latent decoding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import nn
from torch.nn import functional

from l2d.baselines.fitting import FitConfig, Progress, fit, judged, ndcg, samples_fingerprint
from l2d.baselines.known import KnownItems
from l2d.baselines.peers import Shelf, Trained, open_peer
from l2d.errors import ConfigError
from l2d.evidence import blocks
from l2d.interactions import Examples
from l2d.memory import Entries
from l2d.ranking import Rankings, Requests, Rows

Think = Callable[[Sequence[Rows]], NDArray[np.float32]]
"""Histories to thoughts. Shape: (histories, width)."""


class ItemHeadConfig(FitConfig):
    """Options of the item head."""

    epochs: int = Field(30, ge=1, description="Most passes over the memory's entries.")
    patience: int = Field(3, ge=1, description="Epochs without a gain on validation before training stops.")
    weight_decay: float = Field(0.1, ge=0, description="AdamW's decoupled weight decay.")
    dropout: float = Field(0.4, ge=0, lt=1, description="On the standardised thoughts.")
    batch: int = Field(256, ge=1, description="Entries in an optimizer step.")


class Head(nn.Module):
    """Thoughts to one score per known item: standardise, drop, multiply.

    Values of a thought differ in scale by orders of magnitude in some families, so each is centred and divided by its
    deviation over training thoughts. Items start equal but for a bias of their log-share of the training examples.

    Args:
        width: length of a thought.
        known: items.
        dropout: on standardised thoughts.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, width: int, known: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))
        self.dropout = nn.Dropout(dropout)
        self.weight = nn.Parameter(torch.zeros(known, width))
        self.bias = nn.Parameter(torch.zeros(known))

    @torch.no_grad()
    def start(self, thoughts: NDArray[Any], counts: NDArray[np.int64]) -> None:
        """Measures the scale of thoughts and sets the bias: the head as it is before its first step.

        Args:
            thoughts: training thoughts, or a sample of them. Shape: (n, width).
            counts: training examples of each known item. Shape: (known,).
        """
        self.mean.copy_(torch.from_numpy(thoughts.mean(axis=0, dtype=np.float64)))
        self.deviation.copy_(torch.from_numpy(np.maximum(thoughts.std(axis=0, dtype=np.float64), 1e-6)))
        self.bias.copy_(torch.from_numpy(np.log(counts / counts.sum())))

    def forward(self, thoughts: torch.Tensor) -> torch.Tensor:
        """Scores before the softmax. (n, width) -> (n, known)."""
        standard = (thoughts.float() - self.mean) / self.deviation
        return functional.linear(self.dropout(standard), self.weight, self.bias)


class ItemHead:
    """Ranks known items by the head's log-probability given a thought. Make one with `ItemHead.fit`.

    Args:
        head: on its device; put into eval mode.
        known: what may be recommended.
        scores: validation NDCG@10 after each epoch of training.
    """

    name = "item-head"
    needs_thoughts = True

    def __init__(self, head: Head, known: KnownItems, scores: Sequence[float] = ()) -> None:
        self.head, self.known, self.scores = head.eval(), known, list(scores)

    @classmethod
    def fit(
        cls,
        entries: Entries,
        valid: Examples,
        think: Think,
        items: int,
        config: ItemHeadConfig | None = None,
        folder: Path | None = None,
        *,
        identity: Mapping[str, str] | None = None,
        device: str | torch.device = "cpu",
        progress: Progress | None = None,
    ) -> ItemHead:
        """Loads the peer that is kept in the folder, or trains it.

        Args:
            entries: the memory, without any validation target.
            valid: what decides when to stop.
            think: thoughts of validation histories; called only to train.
            items: catalogue size.
            config: options; None for the defaults.
            folder: where the peer is kept, `RUN/peers/item-head`; None keeps nothing.
            identity: fingerprints of data, catalogue, backbone and prompts.
            device: where to train and rank.
            progress: called with steps (done, total); not at all where the peer is loaded.

        Raises:
            ArtifactCorrupt: what is kept in the folder is damaged.
            ConfigError: the memory is empty, or training diverged.
        """
        config = config or ItemHeadConfig()
        known = KnownItems.of(entries.row, items)
        peer = cls(Head(entries.width, len(known), config.dropout).to(device), known)
        # The memory may have grown since tuning, so its entries are part of what the head depends on.
        samples = samples_fingerprint(entries.thoughts, entries.row, valid)
        described = {"peer": cls.name, **(identity or {}), "samples": samples}

        def train(shelf: Shelf | None) -> Trained:
            return fit(_Lessons(peer, entries, valid, think, config), config, shelf, progress)

        trained = open_peer(folder, described, config, train)
        peer.head.load_state_dict(trained.weights)
        return cls(peer.head, known, trained.scores)

    def rank(self, requests: Requests, k: int) -> Rankings:
        """The k most probable known items of each request, scored by log-probability over the known items.

        Raises:
            ConfigError: k below 1, or requests without thoughts.
        """
        if requests.thoughts is None:
            raise ConfigError("item-head needs the requests' thoughts", cure="fill Requests.thoughts with a Thinker")
        parts = []
        for block in blocks(len(requests), len(self.known)):
            scores = head_scores(self.head, requests.thoughts[block])
            parts.append(self.known.rank(scores, requests.take(range(len(requests))[block]), k))
        return Rankings.concatenate(parts)


@torch.inference_mode()
def head_scores(head: Head, thoughts: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log-probabilities of the known items. (n, width) -> (n, known)."""
    given = torch.from_numpy(np.ascontiguousarray(thoughts)).to(head.weight.device)
    return head(given).log_softmax(dim=-1).cpu().numpy()


class _Lessons:
    """The learner of an ItemHead."""

    def __init__(self, peer: ItemHead, entries: Entries, valid: Examples, think: Think, config: ItemHeadConfig) -> None:
        self.peer, self.config = peer, config
        self.module: nn.Module = peer.head
        peer.head.start(entries.thoughts, peer.known.counts(entries.row))
        device = peer.head.weight.device
        self.thoughts = torch.from_numpy(entries.thoughts).to(device)
        self.columns = torch.from_numpy(peer.known.columns[entries.row]).to(device)
        self.steps = -(-len(entries) // config.batch)
        chosen = judged(valid, config.seed)
        histories = chosen.histories()
        self.requests, self.targets = Requests(histories, think(histories)), chosen.target

    def groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.module.parameters()), "peak": self.config.learning_rate}]

    def losses(self, epoch: int) -> Iterator[torch.Tensor]:
        order = np.random.default_rng([self.config.seed, epoch]).permutation(len(self.columns))
        for batch in np.array_split(order, self.steps):
            places = torch.from_numpy(batch).to(self.columns.device)
            yield functional.cross_entropy(self.module(self.thoughts[places]), self.columns[places])

    def score(self) -> float:
        return ndcg(self.peer.rank, self.requests, self.targets)
