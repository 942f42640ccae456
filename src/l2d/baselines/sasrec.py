"""SASRec: causal self-attention over item ids (Kang and McAuley 2018, arXiv 1808.09781), with full cross-entropy.

The loss is a softmax over all known items at every position; with it instead of sampled negatives SASRec is a far
stronger opponent (Klenitskiy and Vasilev 2023, arXiv 2309.07602).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import nn
from torch.nn import functional

from l2d.baselines.fitting import FitConfig, Progress, fit, judged, ndcg, samples_fingerprint, torch_seed
from l2d.baselines.known import IGNORED, KnownItems, seen_rows
from l2d.baselines.peers import Shelf, Trained, open_peer
from l2d.baselines.windows import Window, Windows
from l2d.costs import Meter
from l2d.errors import ConfigError
from l2d.evidence import blocks
from l2d.interactions import Examples
from l2d.ranking import Rankings, Requests, Rows


class SASRecConfig(FitConfig):
    """Options of SASRec. Small batches: with four times fewer steps an epoch it learns far less in as many epochs."""

    epochs: int = Field(30, ge=1, description="Most passes over the training samples.")
    patience: int = Field(10, ge=1, description="Epochs without a gain: most of the last gains come as the rate falls.")
    width: int = Field(128, ge=1, description="Hidden size.")
    layers: int = Field(2, ge=1, description="Blocks of attention and feed-forward.")
    heads: int = Field(2, ge=1, description="Attention heads; divides the width.")
    dropout: float = Field(0.4, ge=0, lt=1, description="On embeddings and inside and behind both parts of a block.")
    length: int | None = Field(None, ge=1, description="Most items read; None for the longest training history.")
    batch: int = Field(32, ge=1, description="Windows in an optimizer step.")


class Block(nn.Module):
    """Pre-norm attention and feed-forward, each behind a residual."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.share = heads, dropout
        self.before_attention, self.before_feed = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries_keys_values, self.joined = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, width), nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Shape: (batch, length, width), in and out."""
        states = states + self.dropout(self._attention(self.before_attention(states)))
        fed = self.down(self.dropout(functional.gelu(self.up(self.before_feed(states)))))
        return states + self.dropout(fed)

    def _attention(self, states: torch.Tensor) -> torch.Tensor:
        split = self.queries_keys_values(states).unflatten(-1, (3, self.heads, -1))
        queries, keys, values = split.permute(2, 0, 3, 1, 4)
        share = self.share if self.training else 0.0
        seen = functional.scaled_dot_product_attention(queries, keys, values, dropout_p=share, is_causal=True)
        return self.joined(seen.transpose(1, 2).flatten(2))


class Network(nn.Module):
    """Item ids to states. The item embeddings are also what states are compared with.

    Args:
        items: catalogue size; one more embedding begins every sequence.
        length: most items of a sequence.
        config: shape and dropout.

    Raises:
        ConfigError: the heads do not divide the width.
    """

    def __init__(self, items: int, length: int, config: SASRecConfig) -> None:
        super().__init__()
        if config.width % config.heads:
            raise ConfigError("heads must divide the width", got=f"{config.heads} heads, width {config.width}")
        self.items = nn.Embedding(items + 1, config.width)
        self.places = nn.Embedding(length + 1, config.width)
        self.blocks = nn.ModuleList(Block(config.width, config.heads, config.dropout) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)
        for embedding in (self.items, self.places):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """States after the final norm.

        Args:
            rows: begin, then items oldest first; behind a short sequence anything, which causal attention never sees
                from before it. Shape: (batch, length).

        Returns:
            Shape: (batch, length, width).
        """
        # The factor is the paper's: embeddings enter at the scale of a state.
        states = self.items(rows) * self.items.embedding_dim**0.5 + self.places.weight[: rows.shape[1]]
        states = self.dropout(states)
        for block in self.blocks:
            states = block(states)
        return self.norm(states)


class SASRec:
    """Ranks known items by their log-probability of coming next. Make one with `SASRec.fit`.

    Items that are in no training sequence have an untrained embedding and are left out of histories; a history that
    is empty, or then becomes so, is answered by what sequences begin with.

    Args:
        network: on its device; put into eval mode.
        known: what may be recommended.
        seen: whether an item is in a training sequence. Shape: (items,).
        scores: validation NDCG@10 after each epoch of training.
    """

    name = "sasrec"
    needs_thoughts = False

    def __init__(
        self, network: Network, known: KnownItems, seen: NDArray[np.bool_], scores: Sequence[float] = ()
    ) -> None:
        self.network = network.eval()
        self.known, self.seen, self.scores = known, seen, list(scores)
        self.length = network.places.num_embeddings - 1
        self.meter = Meter()
        self._rows = torch.from_numpy(known.rows.astype(np.int64)).to(network.places.weight.device)

    @classmethod
    def fit(
        cls,
        train: Examples,
        valid: Examples,
        items: int,
        config: SASRecConfig | None = None,
        folder: Path | None = None,
        *,
        identity: Mapping[str, str] | None = None,
        device: str | torch.device = "cpu",
        progress: Progress | None = None,
    ) -> SASRec:
        """Loads the peer that is kept in the folder, or trains it.

        Args:
            train: what is learnt from.
            valid: what decides when to stop.
            items: catalogue size.
            config: options; None for the defaults.
            folder: where the peer is kept, `RUN/peers/sasrec`; None keeps nothing.
            identity: fingerprints of data and catalogue.
            device: where to train and rank.
            progress: called with steps (done, total); not at all where the peer is loaded.

        Raises:
            ArtifactCorrupt: what is kept in the folder is damaged.
            ConfigError: impossible options, or training diverged.
        """
        config = config or SASRecConfig()
        length = config.length or int(train.history_length.max())
        with torch.random.fork_rng():
            torch.manual_seed(torch_seed(config.seed))
            network = Network(items, length, config).to(device)
        peer = cls(network, KnownItems.of(train.target, items), seen_rows(train, items))
        described = {"peer": cls.name, **(identity or {}), "samples": samples_fingerprint(train, valid)}

        def learn(shelf: Shelf | None) -> Trained:
            return fit(_Lessons(peer, train, valid, config), config, shelf, progress)

        trained = open_peer(folder, described, config, learn)
        network.load_state_dict(trained.weights)
        return cls(network, peer.known, peer.seen, trained.scores)

    def among(self, items: int) -> SASRec:
        """The same peer in a catalogue that has more items behind those it was trained with; it knows none of them."""
        seen = np.zeros(items, dtype=bool)
        seen[: len(self.seen)] = self.seen
        return SASRec(self.network, KnownItems(self.known.rows, items), seen, self.scores)

    def rank(self, requests: Requests, k: int) -> Rankings:
        """The k most probable known items of each request, scored by log-probability over the known items.

        Raises:
            ConfigError: k below 1.
        """
        parts = []
        for block in blocks(len(requests), len(self.known)):
            part = requests.take(range(len(requests))[block])
            scores = self._log_probabilities(part.histories)
            with self.meter.phase("search"):
                parts.append(self.known.rank(scores, part, k))
        return Rankings.concatenate(parts)

    def item_log_probabilities(self, histories: Sequence[Rows]) -> NDArray[np.float32]:
        """Natural log-probability of each item of coming next, -inf for items that are not known.

        A line's finite values are normalised: they sum to one as probabilities. Shape: (histories, items).
        """
        slices = blocks(len(histories), self.known.items)
        return np.concatenate([self.known.spread(self._log_probabilities(histories[block])) for block in slices])

    @torch.inference_mode()
    def _log_probabilities(self, histories: Sequence[Rows]) -> NDArray[np.float32]:
        """Shape: (histories, known)."""
        with self.meter.phase("tokenise"):
            read = [history[self.seen[history]][-self.length :] for history in histories]
            last = torch.tensor([len(history) for history in read], dtype=torch.int64)
            rows = self.inputs(read)
        with self.meter.phase("prefill"):
            states = self.network(rows)[torch.arange(len(read)), last]
            scores = self.item_scores(states).log_softmax(dim=-1)
            self.meter.model_calls += 1
            return scores.float().cpu().numpy()

    def inputs(self, histories: Sequence[Rows]) -> torch.Tensor:
        """Begin and items, padded on the right. Shape: (histories, 1 + items of the longest)."""
        longest = max((len(history) for history in histories), default=0)
        begin = self.network.items.num_embeddings - 1
        rows = np.full((len(histories), 1 + longest), begin, dtype=np.int64)
        for line, history in zip(rows, histories, strict=True):
            line[1 : 1 + len(history)] = history
        return torch.from_numpy(rows).to(self._rows.device)

    def item_scores(self, states: torch.Tensor) -> torch.Tensor:
        """Inner products with the known items' embeddings. (n, width) -> (n, known)."""
        return states @ self.network.items.weight[self._rows].T


class _Lessons:
    """The learner of a SASRec."""

    def __init__(self, peer: SASRec, train: Examples, valid: Examples, config: SASRecConfig) -> None:
        self.peer, self.config = peer, config
        self.module: nn.Module = peer.network
        self.windows = Windows(train, peer.length, config.batch, config.seed)
        self.steps = self.windows.steps
        self.valid = judged(valid, config.seed)

    def groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.module.parameters()), "peak": self.config.learning_rate}]

    def losses(self, epoch: int) -> Iterator[torch.Tensor]:
        return (window_loss(self.peer, batch) for batch in self.windows.batches(epoch))

    def score(self) -> float:
        return ndcg(self.peer.rank, Requests(self.valid.histories()), self.valid.target)


def window_loss(peer: SASRec, windows: Sequence[Window]) -> torch.Tensor:
    """Mean cross-entropy over all known targets of the windows."""
    rows = peer.inputs([window.rows[:-1] for window in windows])
    wanted = np.full(rows.shape, IGNORED, dtype=np.int64)
    for line, window in zip(wanted, windows, strict=True):
        line[: len(window.rows)] = peer.known.columns[window.rows]
        if not window.opens:
            line[0] = IGNORED
    targets = torch.from_numpy(wanted).to(rows.device)
    asked = targets != IGNORED
    scores = peer.item_scores(peer.network(rows)[asked])
    # A log may be so small that a batch holds no known target.
    return functional.cross_entropy(scores, targets[asked], reduction="sum") / asked.sum().clamp(min=1)
