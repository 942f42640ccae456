"""transformers' Trainer over packs: the loss of a prefix tree, validation by ranking, checkpoints that are whole."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import SequentialSampler
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerControl

from l2d.artifacts import fsync, write_text
from l2d.backbone import Backbone, MaskForm, packed_batch
from l2d.backbone.masks import PackedBatch
from l2d.packing import Pack
from l2d.tuning.plan import TuningPlan

MARKER = "complete.json"
"""Last file written into a checkpoint. Without it the checkpoint does not count."""

METRIC = "ndcg@10"


def tree_loss(
    backbone: Backbone, batch: PackedBatch, form: MaskForm | None, model: nn.Module | None = None
) -> torch.Tensor:
    """Sum over tree edges of weight times negative log-likelihood.

    An edge's weight is the number of samples in which its token belongs to the answer, so the sum equals that of the
    samples one at a time. Logits are made at the parents of weighted nodes alone, and by the model's own head.

    Args:
        backbone: holds the model.
        batch: the packs.
        form: how the family takes a pack's mask; None where it cannot be packed and the packs do not branch.
        model: what stands around the backbone's model and is called in its place (an adapter, several processes).
    """
    line, node = torch.nonzero(batch.weight, as_tuple=True)
    places, edge = torch.unique(line * batch.ids.shape[1] + batch.parent[line, node], return_inverse=True)
    with _kept(backbone.base, places):
        outputs = (model or backbone.model)(input_ids=batch.ids, **backbone.pack_arguments(batch, form))
    losses = nn.functional.cross_entropy(outputs.logits[0, edge].float(), batch.ids[line, node], reduction="none")
    return (losses * batch.weight[line, node]).sum()


@contextmanager
def _kept(base: nn.Module, places: torch.Tensor) -> Iterator[None]:
    """Lets a base model hand on the last states of some places only, as one line. Shape: (1, places, width).

    `logits_to_keep` takes the same places of every line; over many packs these are nearly all places that there are.
    """

    def keep(module: nn.Module, _: Any, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state.flatten(0, 1)[places][None]
        return output

    hook = base.register_forward_hook(keep)
    try:
        yield
    finally:
        hook.remove()


class PlannedBatches(TorchDataset[list[Pack]]):
    """The batches of a whole run, planned as they are asked for."""

    def __init__(self, plan: TuningPlan, epochs: int) -> None:
        self.plan = plan
        self.length = plan.batches_per_epoch * epochs

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> list[Pack]:
        return self.plan.batch(index)


def collate(items: list[list[Pack]]) -> dict[str, torch.Tensor]:
    """Joins the packs of a batch into tensors of shape (packs, length)."""
    batch = packed_batch([tree for packs in items for tree in packs])
    return {name: getattr(batch, name) for name in PackedBatch.__dataclass_fields__}


@contextmanager
def state_dropout(model: PreTrainedModel, share: float) -> Iterator[None]:
    """Dropout on input embeddings and last states while the model is in training mode.

    Most families have attention dropout only; from scratch on a small catalogue that over-fits within two epochs.
    """
    if share == 0:
        yield
        return

    def embeddings(module: nn.Module, _: Any, output: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(output, share, training=module.training)

    def states(module: nn.Module, _: Any, output: Any) -> Any:
        output.last_hidden_state = nn.functional.dropout(output.last_hidden_state, share, training=module.training)
        return output

    hooks = [
        model.get_input_embeddings().register_forward_hook(embeddings),
        model.base_model.register_forward_hook(states),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class PackTrainer(Trainer):
    """A Trainer whose batches are packs and whose evaluation is a ranking.

    Args:
        backbone: holds the model in tuning.
        form: how its family takes a pack's mask; None where it cannot be packed and the plan's packs do not branch.
        score: validation NDCG@10 of a backbone, or None.
    """

    control: TrainerControl

    def __init__(
        self,
        *args: Any,
        backbone: Backbone,
        form: MaskForm | None,
        score: Callable[[Backbone], float] | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.backbone, self.form, self.score = backbone, form, score
        # compute_loss divides by the weight of the whole optimizer step; the Trainer must not divide once more.
        self.loss_is_scaled_for_ga = True

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Tree loss over the answer weight of the whole optimizer step, all packs and processes."""
        batch = PackedBatch(**inputs)
        total = num_items_in_batch if num_items_in_batch is not None else batch.weight.sum()
        # Data parallelism averages gradients over processes; the divisor already counts all of them.
        loss = tree_loss(self.backbone, batch, self.form, model) / total * self.accelerator.num_processes
        return (loss, {}) if return_outputs else loss

    def _get_num_items_in_batch(
        self, batch_samples: list[dict[str, torch.Tensor]], device: torch.device
    ) -> torch.Tensor:
        # The Trainer counts labels; packs carry weights instead, and it would return None for them.
        weight = torch.stack([inputs["weight"].sum() for inputs in batch_samples]).sum().to(device)
        return self.accelerator.gather(weight).sum() if self.args.world_size > 1 else weight

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        # The plan is shuffled by itself; batch i must be step i for a resumed run to see the same samples.
        return SequentialSampler(self.train_dataset)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Validation NDCG@10 of global over a sampled memory; the loss turns earlier than the ranking."""
        assert self.score is not None
        self.model.eval()
        metrics = {f"eval_{METRIC}": self.score(self.backbone)}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Logs with the epoch of the samples: to the Trainer the whole run is one epoch of planned batches."""
        batches = self.state.global_step * self.args.gradient_accumulation_steps * max(1, self.args.world_size)
        self.state.epoch = batches / self.train_dataset.plan.batches_per_epoch
        super().log(logs, start_time)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self.args.should_save:
            mark_complete(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}", self.state.global_step)


def mark_complete(checkpoint: Path, step: int) -> None:
    """Flushes a checkpoint's files and writes its completion marker last."""
    for file in sorted(checkpoint.rglob("*")):
        fsync(file)
    fsync(checkpoint)
    temporary = checkpoint / f".{MARKER}.part"
    temporary.write_text(json.dumps({"step": step}))
    fsync(temporary)
    os.replace(temporary, checkpoint / MARKER)
    fsync(checkpoint)


def newest_complete(folder: Path) -> Path | None:
    """The checkpoint with the highest step among those that carry the completion marker."""
    found = [marker.parent for marker in folder.glob(f"checkpoint-*/{MARKER}")]
    return max(found, key=lambda checkpoint: int(checkpoint.name.rsplit("-", 1)[1]), default=None)


def trim_metrics(metrics: Path, step: int) -> None:
    """Drops the lines after a step and what a kill left half-written: the resumed run writes them again."""
    if metrics.is_file():
        whole = [line for line in metrics.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
        write_text(metrics, "".join(line + "\n" for line in whole if json.loads(line)["step"] <= step))


class ProgressCallback(TrainerCallback):
    """Reports optimizer steps and appends the Trainer's logs as JSON lines."""

    def __init__(
        self, metrics: Path, progress: Callable[[int, int], None] | None, notice: Callable[[str], None]
    ) -> None:
        self.metrics, self.progress, self.notice = metrics, progress, notice

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Moves the bar."""
        if self.progress is not None:
            self.progress(state.global_step, state.max_steps)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Writes one line per log."""
        record = {"step": state.global_step, "epoch": round(state.epoch or 0, 3), **(logs or {})}
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        if logs and f"eval_{METRIC}" in logs:
            value = logs[f"eval_{METRIC}"]
            self.notice(f"epoch {record['epoch']:.1f}: validation NDCG@10 {value:.4f} (global, sampled memory)")
