"""How a backbone is tuned; the command line's options and the saved record derive from it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from l2d.errors import ConfigError


class TuningConfig(BaseModel):
    """Options of a tuning run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(16, ge=1, description="Passes over the training samples.")
    learning_rate: float = Field(1.5e-3, gt=0, description="Peak of the schedule.")
    schedule: str = Field("cosine", description="Any schedule of the transformers Trainer.")
    warmup: float = Field(0.1, ge=0, lt=1, description="Share of the steps that the learning rate rises in.")
    weight_decay: float = Field(0.1, ge=0, description="AdamW's decoupled weight decay.")
    clip: float = Field(1.0, gt=0, description="Largest gradient norm.")
    tokens_per_batch: int = Field(2048, ge=16, description="Pack nodes in one forward pass, about.")
    accumulation: int = Field(1, ge=1, description="Forward passes in one optimizer step.")
    pack_tokens: int = Field(
        256, ge=16, description="Most nodes in a pack; short packs are cheaper under a dense mask."
    )
    window: int = Field(12, ge=0, description="Items of a training window, 0 to use histories as they are given.")
    dropout: float = Field(0.2, ge=0, lt=1, description="Dropout on input embeddings and last states.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Type of the matrix products; weights and optimizer stay as they are loaded."
    )
    lora: bool = Field(False, description="Tune a LoRA adapter and leave the weights alone.")
    lora_rank: int = Field(16, ge=1, description="Rank of the adapter.")
    lora_alpha: int = Field(32, ge=1, description="Scale of the adapter.")
    lora_dropout: float = Field(0.05, ge=0, lt=1, description="Dropout inside the adapter.")
    evaluations: int = Field(
        8, ge=0, description="How often validation NDCG@10 is measured; 0 never, keeping the last weights."
    )
    patience: int = Field(3, ge=1, description="Measurements without a gain before tuning stops.")
    seed: int = Field(0, ge=0, description="Of weights, order, offsets and dropout.")

    def with_values(self, **values: object) -> TuningConfig:
        """The same options with some replaced; None leaves one as it is.

        Raises:
            ConfigError: an impossible value; all of them are named.
        """
        given = {name: value for name, value in values.items() if value is not None}
        try:
            return TuningConfig(**{**self.model_dump(), **given})
        except ValidationError as error:
            faults = "; ".join(f"{fault['loc'][0]} = {fault['input']!r}: {fault['msg']}" for fault in error.errors())
            raise ConfigError("impossible tuning options", got=faults, cure="see `l2d tune --help`") from error

    @classmethod
    def for_scratch(cls) -> TuningConfig:
        """Defaults for `scratch:*`: many small steps, strong regularisation, every title a target."""
        return cls()

    @classmethod
    def for_pretrained(cls, *, lora: bool) -> TuningConfig:
        """Defaults for a pretrained LLM: few epochs over the histories as requests will have them."""
        return cls(
            epochs=3,
            learning_rate=2e-4 if lora else 2e-5,
            warmup=0.03,
            weight_decay=0.0,
            tokens_per_batch=4096,
            accumulation=4,
            pack_tokens=1024,
            window=0,
            dropout=0.0,
            lora=lora,
        )
