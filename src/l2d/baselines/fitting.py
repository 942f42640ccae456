"""Fits a torch module epoch by epoch: decided by its seed, stopped early by validation, resumable to the bit.

All that is random in an epoch is drawn from (seed, epoch), and the learning rate is a function of the step. A
checkpoint therefore holds weights, the optimizer's moments and the scores so far, and no state of a generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from l2d.artifacts import sha256_text
from l2d.baselines.peers import CHECKPOINT, Shelf, Tensors, Trained
from l2d.decode.fit import CUT, gains
from l2d.errors import ConfigError
from l2d.interactions import Examples
from l2d.ranking import Rankings, Requests

JUDGED = 5_000
"""Most validation examples that an epoch is judged by; the standard error of NDCG@10 is then about .004."""

Progress = Callable[[int, int], None]


class FitConfig(BaseModel):
    """Options of any fit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(40, ge=1, description="Most passes over the training samples.")
    patience: int = Field(5, ge=1, description="Epochs without a gain on validation before training stops.")
    learning_rate: float = Field(1e-3, gt=0, description="Peak of the schedule.")
    warmup: float = Field(0.02, ge=0, lt=1, description="Share of the steps that the learning rate rises in.")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's decoupled weight decay.")
    clip: float = Field(1.0, gt=0, description="Largest gradient norm.")
    seed: int = Field(0, ge=0, description="Of weights, order, windows and dropout.")


class Learner(Protocol):
    """What can be fitted."""

    module: nn.Module
    steps: int
    """Optimizer steps in an epoch."""

    def groups(self) -> list[dict[str, Any]]:
        """Parameters by `peak`, their highest learning rate."""
        ...

    def losses(self, epoch: int) -> Iterator[torch.Tensor]:
        """The loss of each step of an epoch; may draw from torch's default generator, which is seeded outside."""
        ...

    def score(self) -> float:
        """Validation NDCG@10 of the module as it is."""
        ...


class Course:
    """A fit on its way.

    Args:
        learner: its module is trained in place.
        config: options.
    """

    def __init__(self, learner: Learner, config: FitConfig) -> None:
        self.learner, self.config = learner, config
        # Rates are set before every step; a group's own, and not the optimizer's.
        self.optimizer = torch.optim.AdamW(
            learner.groups(), lr=0.0, betas=(0.9, 0.98), weight_decay=config.weight_decay
        )
        self.scores: list[float] = []
        self.best: dict[str, torch.Tensor] = {}

    @property
    def total(self) -> int:
        """Steps of the whole course, if it is not stopped early."""
        return self.config.epochs * self.learner.steps

    @property
    def best_epoch(self) -> int:
        """The earliest epoch with the highest score."""
        return int(np.argmax(self.scores))

    @property
    def over(self) -> bool:
        """Whether the last epoch is done or patience has run out."""
        done = len(self.scores)
        return done == self.config.epochs or (done > 0 and done - 1 - self.best_epoch >= self.config.patience)

    def epoch(self, progress: Progress | None) -> None:
        """One pass over the training samples, then the validation score."""
        module, number = self.learner.module, len(self.scores)
        module.train()
        with torch.random.fork_rng():
            torch.manual_seed(torch_seed(self.config.seed, number))
            for step, loss in enumerate(self.learner.losses(number), start=number * self.learner.steps):
                self._step(step, loss)
                if progress is not None:
                    progress(step + 1, self.total)
        module.eval()
        self.scores.append(self.learner.score())
        if self.best_epoch == number:
            self.best = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}

    def _step(self, step: int, loss: torch.Tensor) -> None:
        share = learning_rate_share(step, self.total, self.config.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * share
        self.optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.learner.module.parameters(), self.config.clip)
        if not norm.isfinite():
            raise ConfigError("training diverged", got=f"gradient norm {norm:g}", cure="lower the learning rate")
        self.optimizer.step()

    def save(self, shelf: Shelf) -> None:
        """Puts all that the rest of the course depends on onto the shelf."""
        tensors = {f"last.{name}": tensor for name, tensor in self.learner.module.state_dict().items()}
        if self.best_epoch != len(self.scores) - 1:
            tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        for place, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{place}.{name}": tensor for name, tensor in moments.items()}
        shelf.put(CHECKPOINT, tensors, self.scores)

    def resume(self, shelf: Shelf) -> None:
        """Goes back to where a checkpoint on the shelf was, if there is one."""
        found = shelf.find(CHECKPOINT)
        if found is None:
            return
        self.scores = found.scores
        last = _below("last.", found.weights)
        self.learner.module.load_state_dict(last)
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for key, tensor in _below("optimizer.", found.weights).items():
            place, name = key.split(".")
            moments.setdefault(int(place), {})[name] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self.best = _below("best.", found.weights) or last


def fit(learner: Learner, config: FitConfig, shelf: Shelf | None = None, progress: Progress | None = None) -> Trained:
    """Trains to the end of the course and returns the best epoch's weights.

    Args:
        learner: what is fitted; its module is left as the last epoch left it.
        config: options.
        shelf: keeps a checkpoint after each epoch; the course goes on from one that is there.
        progress: called with steps (done, total); a course that stops early jumps to its end.

    Raises:
        ConfigError: a gradient is not finite.
        ArtifactCorrupt: the checkpoint is damaged.
    """
    course = Course(learner, config)
    if shelf is not None:
        course.resume(shelf)
    while not course.over:
        course.epoch(progress)
        if shelf is not None:
            course.save(shelf)
    if progress is not None:
        progress(course.total, course.total)
    return Trained({name: tensor.cpu() for name, tensor in course.best.items()}, course.scores)


def learning_rate_share(step: int, total: int, warmup: float) -> float:
    """Share of the peak at a step: a straight rise, then half a cosine down to zero."""
    rise = warmup * total
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / (total - rise)))


def torch_seed(*parts: int) -> int:
    """One seed for torch out of several numbers."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


def judged(valid: Examples, seed: int) -> Examples:
    """At most `JUDGED` validation examples, drawn by the seed, in their given order."""
    if len(valid) <= JUDGED:
        return valid
    return valid.take(np.sort(np.random.default_rng([seed, 17]).choice(len(valid), JUDGED, replace=False)))


def ndcg(rank: Callable[[Requests, int], Rankings], requests: Requests, targets: NDArray[np.int32]) -> float:
    """Mean NDCG@10 of what `rank` answers."""
    return float(gains(rank(requests, CUT), targets).mean())


def samples_fingerprint(*parts: Examples | NDArray[Any]) -> str:
    """Digest of what a peer learns from and is judged by, item for item."""
    digests: list[bytes] = []
    for part in parts:
        columns: Sequence[NDArray[Any]] = [part]  # type: ignore[list-item]
        if isinstance(part, Examples):
            columns = [part.interactions.user, part.interactions.row, part.start, part.end]
        digests += [np.ascontiguousarray(column).tobytes() for column in columns]
    return sha256_text(*digests)


def _below(prefix: str, tensors: Tensors) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
