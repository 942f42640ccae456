"""LoRA adapters: put on for tuning, read from a folder, merged into the weights."""

from __future__ import annotations

from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from l2d.errors import ConfigError


def with_adapter(model: PreTrainedModel, *, rank: int, alpha: int, dropout: float) -> PeftModel:
    """The model with a fresh adapter on every linear layer but the language head; the rest is frozen.

    The layers are put into `model` itself, so `model` computes with the adapter, too.
    """
    lora = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, lora)


def merged(model: PeftModel) -> PreTrainedModel:
    """The model with its adapter added into the weights; nothing of the adapter stays."""
    return model.merge_and_unload()


def merge_adapter(model: PreTrainedModel, adapter: str | Path) -> PreTrainedModel:
    """Reads an adapter from a folder and merges it in the model's dtype.

    Raises:
        ConfigError: no adapter there, or it belongs to another model.
    """
    try:
        return merged(PeftModel.from_pretrained(model, str(adapter)))
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"cannot put the adapter {adapter} on this backbone",
            got=first,
            cure="give the backbone that the adapter was tuned on",
        ) from error
