"""The Backbone: a causal LM with its tokenizer, opened from the hub, a folder or an adapter, and its last states."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel

from l2d.backbone.adapter import merge_adapter
from l2d.backbone.masks import MaskForm, PackedBatch, attention_masks
from l2d.backbone.reader import Reader
from l2d.backbone.tokenizer import TextTokenizer
from l2d.errors import ConfigError

Layers = Sequence[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of each layer. Shape of a tensor: (batch, heads, tokens, head width)."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """`auto` is the first GPU where there is one, else the CPU.

    Raises:
        ConfigError: no such device here.
    """
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first = str(error).splitlines()[0]
        raise ConfigError(f"no device {device} here", got=first, cure="use --device cpu or auto") from error
    return found


def resolve_dtype(dtype: str, device: torch.device, width: int) -> torch.dtype:
    """`auto` is bfloat16 on a GPU, and on a CPU where a matrix product of the model's width runs 1.3x faster in it.

    Raises:
        ConfigError: not a dtype that backbones compute in.
    """
    if dtype != "auto":
        if dtype not in DTYPES:
            raise ConfigError("unknown compute dtype", got=dtype, expected=f"auto, {', '.join(DTYPES)}")
        return DTYPES[dtype]
    if device.type != "cpu":
        return torch.bfloat16
    # Below this width rounding costs more than the products gain.
    return torch.bfloat16 if width >= 1024 and bfloat16_gain(width) > 1.3 else torch.float32


def bfloat16_gain(width: int, rows: int = 256) -> float:
    """How many times faster a (rows, width) x (width, width) product runs in bfloat16 than in float32; about 50 ms."""
    seconds = {}
    for dtype in DTYPES.values():
        a, b = torch.ones(rows, width, dtype=dtype), torch.ones(width, width, dtype=dtype)
        a @ b
        best = float("inf")
        for _ in range(5):
            start = time.perf_counter()
            a @ b
            best = min(best, time.perf_counter() - start)
        seconds[dtype] = best
    return seconds[torch.float32] / seconds[torch.bfloat16]


class Backbone:
    """A causal LM and its tokenizer, in eval mode.

    Args:
        model: what `AutoModelForCausalLM` gives, adapter merged.
        tokenizer: its tokenizer.
        name: hub name, folder or `scratch:*`.
        revision: commit of the hub repository, where it came from there.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: TextTokenizer, name: str, revision: str | None = None
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.name = name
        self.revision = revision
        self._settled = False
        self._compiler: str | None = None

    @classmethod
    def open(
        cls,
        name: str | Path,
        *,
        adapter: str | Path | None = None,
        revision: str | None = None,
        dtype: str = "auto",
        device: str | torch.device = "auto",
    ) -> Backbone:
        """Loads a backbone from the hub or a folder; an adapter is merged in fp32, then everything is cast.

        Raises:
            ConfigError: nothing loadable there, or the adapter belongs to another model.
        """
        where = resolve_device(device)
        try:
            model = AutoModelForCausalLM.from_pretrained(
                str(name), revision=revision, dtype=torch.float32 if adapter else "auto"
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ConfigError(
                f"cannot load a causal LM from {name}",
                got=first,
                cure="give a Hugging Face name or a folder with config.json",
            ) from error
        if adapter is not None:
            model = merge_adapter(model, adapter)
        tokenizer = TextTokenizer.open(str(name), revision=revision)
        model = model.to(resolve_dtype(dtype, where, model.config.get_text_config().hidden_size)).to(where).eval()
        return cls(model, tokenizer, str(name), getattr(model.config, "_commit_hash", None))

    def named(self, name: str, revision: str | None) -> Backbone:
        """The same backbone under the name it came from, where it was opened from a copy."""
        self.name, self.revision = name, revision
        return self

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """The compute dtype."""
        return self.model.dtype

    @property
    def width(self) -> int:
        """Hidden size."""
        return int(self.model.config.get_text_config().hidden_size)

    @property
    def context(self) -> int:
        """Most positions the model was made for."""
        return int(getattr(self.model.config.get_text_config(), "max_position_embeddings", 2048))

    @property
    def window(self) -> int | None:
        """Tokens that its sliding-window layers see, or None without such layers."""
        config = self.model.config.get_text_config()
        window = getattr(config, "sliding_window", None)
        layers = getattr(config, "layer_types", None)
        if not window or (layers is not None and "sliding_attention" not in layers):
            return None
        return int(window) if getattr(config, "use_sliding_window", True) is not False else None

    @property
    def layer_types(self) -> set[str]:
        """Kinds of layers, where the configuration names them."""
        return set(getattr(self.model.config.get_text_config(), "layer_types", None) or ())

    @property
    def attention(self) -> str:
        """Name of the attention implementation, e.g. `sdpa`."""
        return str(self.model.config._attn_implementation)

    @property
    def base(self) -> nn.Module:
        """The model without its language head: what makes last states."""
        return self.model.base_model

    @cached_property
    def fingerprint(self) -> str:
        """Digest of all weights by name and of the configuration that shapes the computation."""
        return weight_fingerprint(self.model.state_dict(), self.model.config.to_json_string(use_diff=False))

    def take(self, model: PreTrainedModel) -> None:
        """Replaces the model by a tuned one, in eval mode; the fingerprint is that of the new weights."""
        self.model, self._settled, self._compiler = model.eval(), False, None
        for name in ("fingerprint", "reader"):
            self.__dict__.pop(name, None)

    def last_states(self, ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Last-layer states after the final norm for right-padded ids.

        Args:
            ids: Shape: (batch, length).
            attention_mask: 1 for tokens, 0 for padding. Shape: (batch, length).

        Returns:
            Shape: (batch, length, width).
        """
        output = self.base(input_ids=ids, attention_mask=attention_mask, use_cache=False)
        return output.last_hidden_state

    def settle(self, compiler: str | None = None) -> Backbone:
        """Promises that the weights stay as they are; see `Reader`, also for the compiler."""
        self._settled, self._compiler = True, compiler
        self.__dict__.pop("reader", None)
        return self

    @property
    def compiled(self) -> bool:
        """Whether `states_at` runs a compiled model."""
        return self._compiler is not None

    @cached_property
    def reader(self) -> Reader:
        """What `states_at` runs."""
        return Reader(self.base, self.attention, self.window, settled=self._settled, compiler=self._compiler)

    def states_at(self, ids: torch.Tensor, read: torch.Tensor, **arguments: object) -> torch.Tensor:
        """Last-layer states at a few positions, after the final norm; the last layer computes no others if it can.

        Args:
            ids: Shape: (batch, length).
            read: positions. Shape: (batch, reads).
            arguments: for the model's forward: masks, position ids, a cache.

        Returns:
            Shape: (batch, reads, width).
        """
        return self.reader(ids, read, **arguments)

    def pack_arguments(self, batch: PackedBatch, form: MaskForm | None, before: Layers = ()) -> dict[str, object]:
        """What a forward over packs gets beside the token ids.

        Without a form the packs must not branch: they are right-padded lines, and the model's own causal mask serves.
        Keys and values of tokens in front of every pack may be given to a form without a window. Shape of a tensor:
        (1, heads, tokens, head width).
        """
        if form is None:
            place = torch.arange(batch.end.shape[1], device=batch.end.device)
            return {"attention_mask": (place < batch.end[:, :1]).long(), "use_cache": False}
        additive = self.dtype if self.attention == "eager" else None
        known = before[0][0].shape[2] if before else 0
        masks = attention_masks(batch.end, batch.depth, form, self.window, additive, known)
        arguments: dict[str, object] = {
            "position_ids": batch.depth + known,
            "attention_mask": masks,
            "use_cache": bool(before),
        }
        if before:
            lines = len(batch.ids)
            arguments["past_key_values"] = self.cache(
                [(keys.expand(lines, -1, -1, -1), values.expand(lines, -1, -1, -1)) for keys, values in before]
            )
        return arguments

    def packed_states(self, batch: PackedBatch, form: MaskForm) -> torch.Tensor:
        """Last-layer states of packs. Shape: (packs, length, width)."""
        output = self.base(input_ids=batch.ids, **self.pack_arguments(batch, form))
        return output.last_hidden_state

    def cache(self, layers: Layers = ()) -> DynamicCache:
        """A key/value cache that keeps every token in every layer, those with a sliding window included.

        Args:
            layers: keys and values that it holds already; they are copied before anything is added.
        """
        return DynamicCache(layers or None)

    def save(self, folder: Path) -> None:
        """Writes full weights and the tokenizer into a folder."""
        self.model.save_pretrained(folder, safe_serialization=True)
        self.tokenizer.save(folder)


def weight_fingerprint(state: Mapping[str, torch.Tensor], configuration: str) -> str:
    """Digest of named tensors, bit for bit in their own dtype, and of the configuration's shape-giving lines."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.view(torch.uint8).numpy().tobytes() if tensor.ndim else str(tensor.item()).encode())
    noise = ("transformers_version", "_name_or_path", "architectures", "torch_dtype", '"dtype"')
    for line in configuration.splitlines():
        if not any(word in line for word in noise):
            digest.update(line.strip().rstrip(",").encode())
    return digest.hexdigest()
