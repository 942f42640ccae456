"""item-head-tuned: the backbone and a softmax over items on its thoughts, tuned end to end for the next item.

What the tuned language model could be if it had never to write a title. It starts from the run's tuned backbone.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import nn
from torch.nn import functional

from l2d.backbone import Backbone, PackProbe, packed_batch
from l2d.baselines.fitting import FitConfig, Progress, fit, judged, ndcg, samples_fingerprint
from l2d.baselines.item_head import Head, head_scores
from l2d.baselines.known import IGNORED, KnownItems
from l2d.baselines.peers import Shelf, Trained, open_peer
from l2d.baselines.windows import Window, Windows
from l2d.costs import Meter
from l2d.evidence import blocks
from l2d.interactions import Examples
from l2d.packing import pack
from l2d.ranking import Rankings, Requests, Rows
from l2d.thoughts import TorchThinker
from l2d.tuning import state_dropout

MEASURED = 2_000
"""Training thoughts that the head's standardisation is measured on."""


class ItemHeadTunedConfig(FitConfig):
    """Options of the item head that is tuned with its backbone."""

    learning_rate: float = Field(1e-3, gt=0, description="Peak of the head's schedule.")
    backbone_learning_rate: float = Field(3e-4, gt=0, description="Peak of the backbone's schedule.")
    epochs: int = Field(8, ge=1, description="Most passes over the training targets.")
    patience: int = Field(2, ge=1, description="Epochs without a gain on validation before training stops.")
    warmup: float = Field(0.05, ge=0, lt=1, description="Share of the steps that the learning rate rises in.")
    dropout: float = Field(0.2, ge=0, lt=1, description="On input embeddings and last states.")
    batch: int = Field(32, ge=1, description="Windows in an optimizer step.")
    pack_tokens: int = Field(256, ge=16, description="Most nodes in a pack.")

    @classmethod
    def for_pretrained(cls) -> ItemHeadTunedConfig:
        """Defaults for a pretrained LLM: a lower rate and fewer passes, no dropout inside the model."""
        return cls(epochs=3, backbone_learning_rate=2e-5, dropout=0.0, pack_tokens=1024)


class PromptOf(Protocol):
    """What is needed of `l2d.prompts.Prompts`."""

    def prompt(self, history: Rows) -> NDArray[np.int32]:
        """Token ids of a history's prompt."""
        ...


class ItemHeadTuned:
    """Ranks known items by log-probability given a prompt. Make one with `ItemHeadTuned.fit`.

    Args:
        backbone: tuned for it, and its own.
        head: on the backbone's device; put into eval mode.
        known: what may be recommended.
        prompts: compiled prompts.
        probe: what the backbone's opening probe found.
        scores: validation NDCG@10 after each epoch of training.
    """

    name = "item-head-tuned"
    needs_thoughts = False

    def __init__(
        self,
        backbone: Backbone,
        head: Head,
        known: KnownItems,
        prompts: PromptOf,
        probe: PackProbe,
        scores: Sequence[float] = (),
    ) -> None:
        self.backbone, self.head, self.known = backbone, head.eval(), known
        self.prompts, self.probe, self.scores = prompts, probe, list(scores)
        self.thinker = TorchThinker(backbone, probe)
        self.meter = Meter()
        backbone.base.register_forward_hook(self._count)

    @classmethod
    def fit(
        cls,
        train: Examples,
        valid: Examples,
        items: int,
        backbone: Backbone,
        prompts: PromptOf,
        probe: PackProbe,
        config: ItemHeadTunedConfig | None = None,
        folder: Path | None = None,
        *,
        identity: Mapping[str, str] | None = None,
        progress: Progress | None = None,
    ) -> ItemHeadTuned:
        """Loads the peer that is kept in the folder, or trains it.

        Trains in float32 (in mixed precision where the backbone computes in bfloat16) and ranks in the backbone's type.

        Args:
            train: what is learnt from.
            valid: what decides when to stop.
            items: catalogue size.
            backbone: the run's; it is copied and stays as it is.
            prompts: compiled prompts.
            probe: what the backbone's opening probe found.
            config: options; None for the defaults.
            folder: where the peer is kept, `RUN/peers/item-head-tuned`; None keeps nothing.
            identity: fingerprints of data, catalogue, backbone and prompts.
            progress: called with steps (done, total); not at all where the peer is loaded.

        Raises:
            ArtifactCorrupt: what is kept in the folder is damaged.
            ConfigError: impossible options, or training diverged.
        """
        config = config or ItemHeadTunedConfig()
        peer = cls._untrained(backbone, prompts, probe, KnownItems.of(train.target, items))
        described = {"peer": cls.name, **(identity or {}), "samples": samples_fingerprint(train, valid)}

        def learn(shelf: Shelf | None) -> Trained:
            lessons = _Lessons(peer, train, valid, config, backbone.dtype)
            with state_dropout(peer.backbone.model, config.dropout):
                return fit(lessons, config, shelf, progress)

        trained = open_peer(folder, described, config, learn)
        peer.module.load_state_dict(trained.weights)
        peer.backbone.take(peer.backbone.model.to(backbone.dtype))
        peer.scores = trained.scores
        peer.meter.reset()
        return peer

    @classmethod
    def _untrained(cls, backbone: Backbone, prompts: PromptOf, probe: PackProbe, known: KnownItems) -> ItemHeadTuned:
        """With a float32 copy of the backbone: bfloat16 weights would lose what an optimizer step adds to them."""
        model = copy.deepcopy(backbone.model).float()
        copied = Backbone(model, backbone.tokenizer, backbone.name, backbone.revision)
        # No dropout of its own: the last states that it is given are dropped already.
        head = Head(backbone.width, len(known), dropout=0.0).to(backbone.device)
        return cls(copied, head, known, prompts, probe)

    @property
    def module(self) -> nn.Module:
        """All that is trained: the backbone without its language head, and the item head."""
        return nn.ModuleDict({"backbone": self.backbone.base, "head": self.head})

    def rank(self, requests: Requests, k: int) -> Rankings:
        """The k most probable known items of each request, scored by log-probability over the known items.

        Raises:
            ConfigError: k below 1.
        """
        with self.meter.phase("tokenise"):
            prompts = [self.prompts.prompt(history) for history in requests.histories]
        with self.meter.phase("prefill"):
            thoughts = self.thinker.think(prompts)
        parts = []
        with self.meter.phase("search"):
            for block in blocks(len(requests), len(self.known)):
                scores = head_scores(self.head, thoughts[block])
                parts.append(self.known.rank(scores, requests.take(range(len(requests))[block]), k))
        return Rankings.concatenate(parts)

    def _count(self, *_: object) -> None:
        self.meter.model_calls += 1


class _Lessons:
    """The learner of an ItemHeadTuned."""

    def __init__(
        self,
        peer: ItemHeadTuned,
        train: Examples,
        valid: Examples,
        config: ItemHeadTunedConfig,
        dtype: torch.dtype,
    ) -> None:
        self.peer, self.module, self.config, self.dtype = peer, peer.module, config, dtype
        chosen = np.random.default_rng([config.seed, 19]).permutation(len(train))[:MEASURED]
        measured = [peer.prompts.prompt(history) for history in train.take(np.sort(chosen)).histories()]
        peer.head.start(peer.thinker.think(measured), peer.known.counts(train.target))
        self.windows = Windows(train, int(train.history_length.max()), config.batch, config.seed)
        self.steps = self.windows.steps
        self.valid = judged(valid, config.seed)

    def groups(self) -> list[dict[str, Any]]:
        body, head = self.peer.backbone.base.parameters(), self.peer.head.parameters()
        return [
            {"params": list(body), "peak": self.config.backbone_learning_rate},
            {"params": list(head), "peak": self.config.learning_rate},
        ]

    def losses(self, epoch: int) -> Iterator[torch.Tensor]:
        device = self.peer.backbone.device.type
        for batch in self.windows.batches(epoch):
            with torch.autocast(device, dtype=self.dtype, enabled=self.dtype != torch.float32):
                loss = prompt_loss(self.peer, batch, self.config.pack_tokens)
            yield loss

    def score(self) -> float:
        return ndcg(self.peer.rank, Requests(self.valid.histories()), self.valid.target)


def prompt_loss(peer: ItemHeadTuned, windows: Sequence[Window], pack_tokens: int) -> torch.Tensor:
    """Mean cross-entropy over all known targets of the windows, each read at the end of its own prompt."""
    prompts, columns = [], []
    for rows, opens in windows:
        for place in range(0 if opens else 1, len(rows)):
            column = peer.known.columns[rows[place]]
            if column != IGNORED:
                prompts.append(peer.prompts.prompt(rows[:place]))
                columns.append(column)
    if not prompts:  # a log so small that a batch may hold no known target
        return torch.zeros((), requires_grad=True)
    thoughts = read_thoughts(peer.backbone, peer.probe, prompts, pack_tokens)
    targets = torch.from_numpy(np.array(columns, dtype=np.int64)).to(thoughts.device)
    return functional.cross_entropy(peer.head(thoughts), targets)


def read_thoughts(
    backbone: Backbone, probe: PackProbe, prompts: Sequence[NDArray[np.int32]], pack_tokens: int
) -> torch.Tensor:
    """Thoughts in the order of the prompts, with gradients: packed where the probe allows it, else right-padded.

    Shape: (prompts, width).
    """
    if probe.form is None:
        return _read_padded(backbone, prompts)
    packs = pack(prompts, pack_tokens)
    states = backbone.packed_states(packed_batch(packs).to(backbone.device), probe.form)
    lines = np.repeat(np.arange(len(packs)), [len(tree.sequences) for tree in packs])
    places = np.concatenate([tree.read for tree in packs]).astype(np.int64)
    order = np.argsort(np.concatenate([tree.sequences for tree in packs]))
    return states[torch.from_numpy(lines[order]).to(states.device), torch.from_numpy(places[order]).to(states.device)]


def _read_padded(backbone: Backbone, prompts: Sequence[NDArray[np.int32]]) -> torch.Tensor:
    lengths = np.array([len(prompt) for prompt in prompts], dtype=np.int64)
    ids = np.zeros((len(prompts), int(lengths.max())), dtype=np.int64)
    for line, prompt in zip(ids, prompts, strict=True):
        line[: len(prompt)] = prompt
    mask = torch.from_numpy((np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int64)).to(backbone.device)
    states = backbone.last_states(torch.from_numpy(ids).to(backbone.device), mask)
    lines = torch.arange(len(prompts), device=states.device)
    return states[lines, torch.from_numpy(lengths - 1).to(states.device)]
