"""Causal LM + tokenizer + adapter. The one place that imports transformers and peft (tuning may use the Trainer)."""

from __future__ import annotations

from l2d.backbone.adapter import merge_adapter, merged, with_adapter
from l2d.backbone.kernels import bound_kernels
from l2d.backbone.machine import machine
from l2d.backbone.masks import MaskForm, packed_batch
from l2d.backbone.model import Backbone, Layers, resolve_device, resolve_dtype
from l2d.backbone.probe import PackProbe, probe_packing
from l2d.backbone.scratch import SCRATCH_SIZES, ScratchSize, drafter_backbone, scratch_backbone
from l2d.backbone.tokenizer import TextTokenizer, learn_tokenizer

__all__ = [
    "SCRATCH_SIZES",
    "Backbone",
    "Layers",
    "MaskForm",
    "PackProbe",
    "ScratchSize",
    "TextTokenizer",
    "drafter_backbone",
    "learn_tokenizer",
    "machine",
    "merge_adapter",
    "merged",
    "packed_batch",
    "probe_packing",
    "resolve_device",
    "resolve_dtype",
    "scratch_backbone",
    "with_adapter",
]

bound_kernels()  # before anything of ours computes
