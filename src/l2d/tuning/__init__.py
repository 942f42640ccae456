"""Prompts + answers -> tuned backbone, with transformers' Trainer over prefix-tree packs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import EarlyStoppingCallback, PreTrainedModel, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_callback import ProgressCallback as TrainerBar

from l2d.artifacts import space_errors
from l2d.backbone import Backbone, MaskForm, PackProbe, merged, with_adapter
from l2d.backbone.model import bfloat16_gain
from l2d.errors import InternalError
from l2d.tuning.config import TuningConfig
from l2d.tuning.plan import Sample, TuningPlan
from l2d.tuning.processes import is_main, processes, wait_for_all
from l2d.tuning.trainer import (
    MARKER,
    METRIC,
    PackTrainer,
    PlannedBatches,
    ProgressCallback,
    collate,
    mark_complete,
    newest_complete,
    state_dropout,
    tree_loss,
    trim_metrics,
)

__all__ = [
    "PackTrainer",
    "Sample",
    "TuningConfig",
    "TuningPlan",
    "collate",
    "is_main",
    "mark_complete",
    "newest_complete",
    "state_dropout",
    "tree_loss",
    "tune",
    "wait_for_all",
]


SAVES = 8
"""Checkpoints of a run that measures nothing."""


def tune(
    backbone: Backbone,
    plan: TuningPlan,
    config: TuningConfig,
    folder: Path,
    *,
    probe: PackProbe,
    score: Callable[[Backbone], float] | None = None,
    resume: bool = False,
    progress: Callable[[int, int], None] | None = None,
    notice: Callable[[str], None] = lambda line: None,
) -> None:
    """Tunes the backbone's model in place and leaves it in eval mode with the best weights.

    Args:
        backbone: what to tune; with `config.lora` the adapter is merged when done.
        plan: the batches of the run.
        config: options.
        folder: keeps `checkpoints/`, `metrics.jsonl` and, with LoRA, `adapter/`.
        probe: the opening probe's finding.
        score: validation NDCG@10 of a backbone; None keeps the last weights.
        resume: start from the newest complete checkpoint in the folder, if there is one.
        progress: called with (steps done, steps in all).
        notice: called with lines for people.

    Raises:
        InternalError: the plan's packs branch and the family cannot be packed.
    """
    if probe.form is None and plan.branching:
        raise InternalError("a backbone that cannot be packed needs a plan without branches", got=probe.reason)
    checkpoints = folder / "checkpoints"
    newest = newest_complete(checkpoints) if resume else None
    if resume:
        notice(f"resuming from {newest.name}" if newest else "nothing complete to resume from: starting at step 0")
    wait_for_all()  # every process has looked for a checkpoint before one of them clears away
    if is_main():
        _clear(checkpoints, resume=resume)
        trim_metrics(folder / "metrics.jsonl", int(newest.name.rsplit("-", 1)[1]) if newest else -1)
    wait_for_all()
    model = _adapted(backbone.model, config) if config.lora else backbone.model
    trainer = _trainer(backbone, model, plan, config, checkpoints, probe.form, score)
    for callback in (PrinterCallback, TrainerBar):
        trainer.remove_callback(callback)
    if is_main():
        trainer.add_callback(ProgressCallback(folder / "metrics.jsonl", progress, notice))
    kept = "complete checkpoints stay, and --resume goes on from the newest"
    with state_dropout(backbone.model, config.dropout), space_errors(checkpoints, kept):
        trainer.train(resume_from_checkpoint=str(newest) if newest else None)
    if config.lora:
        if is_main():
            model.save_pretrained(folder / "adapter")
        model = merged(model)
    backbone.take(model)


def _clear(checkpoints: Path, *, resume: bool) -> None:
    """Removes what an earlier run left, and checkpoints that are not complete."""
    for checkpoint in checkpoints.glob("checkpoint-*"):
        # One of an earlier run would be taken for this one's after a kill; an incomplete one would be written into.
        if not resume or not (checkpoint / MARKER).is_file():
            shutil.rmtree(checkpoint)


def _adapted(model: PreTrainedModel, config: TuningConfig) -> PreTrainedModel:
    return with_adapter(model, rank=config.lora_rank, alpha=config.lora_alpha, dropout=config.lora_dropout)


def _trainer(
    backbone: Backbone,
    model: PreTrainedModel,
    plan: TuningPlan,
    config: TuningConfig,
    checkpoints: Path,
    form: MaskForm | None,
    score: Callable[[Backbone], float] | None,
) -> PackTrainer:
    batches = PlannedBatches(plan, config.epochs)
    judged = score is not None and config.evaluations > 0
    steps = len(batches) // (config.accumulation * processes())
    every = max(1, steps // (config.evaluations or SAVES))
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=1,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=config.accumulation,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.schedule,
        warmup_steps=config.warmup,
        weight_decay=config.weight_decay,
        adam_beta1=0.9,
        adam_beta2=0.95,
        max_grad_norm=config.clip,
        bf16=_in_bfloat16(backbone, config),
        use_cpu=backbone.device.type == "cpu",
        seed=config.seed,
        logging_steps=max(1, every // 10),
        eval_strategy="steps" if judged else "no",
        save_strategy="steps",
        eval_steps=every,
        save_steps=every,
        # The best, the newest and the one before it: a kill inside a save leaves a complete one behind.
        save_total_limit=3,
        load_best_model_at_end=judged,
        # Without it a resumed run forgets its patience and stops later than one that was never interrupted.
        restore_callback_states_from_checkpoint=True,
        metric_for_best_model=METRIC if judged else None,
        greater_is_better=True,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=backbone.device.type != "cpu",
    )
    # One process with several GPUs would split tensors along their first side, which tears packs and positions apart.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    callbacks = [EarlyStoppingCallback(config.patience)] if judged else []
    return PackTrainer(
        model=model,
        args=arguments,
        train_dataset=batches,
        eval_dataset=batches if judged else None,  # asked for by the Trainer; evaluate() ranks instead
        data_collator=collate,
        callbacks=callbacks,
        backbone=backbone,
        form=form,
        score=score if judged else None,
    )


def _in_bfloat16(backbone: Backbone, config: TuningConfig) -> bool:
    if config.precision != "auto":
        return config.precision == "bfloat16"
    if backbone.device.type != "cpu":
        return torch.cuda.is_bf16_supported()
    return bfloat16_gain(backbone.width, rows=config.tokens_per_batch) > 1.3
