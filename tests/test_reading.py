"""The last layer computed only where it is read gives what the whole layer gives there."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from families import FAMILIES, SHAPE, open_family, tokenizer
from l2d.backbone import Backbone, MaskForm, packed_batch, reader
from l2d.backbone.reading import LEAST_GAIN, can_read_short, gain
from l2d.backbone.reordered import ReorderedLinear, reordering_pays
from l2d.packing import pack

SHORT = ("llama", "qwen3", "qwen2")


def opened(family: str, folder: Path) -> Backbone:
    if family != "qwen2":
        return open_family(family, folder)
    words = tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = AutoModelForCausalLM.from_config(Qwen2Config(**SHAPE, vocab_size=words.size))
        for weights in model.parameters():  # biases of queries, keys and values begin at zero otherwise
            torch.nn.init.normal_(weights, std=0.3)
    Backbone(model, words, family).save(folder)
    return Backbone.open(folder, dtype="float32", device="cpu")


def near(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool((found - expected).abs().max() <= 1e-5 * expected.abs().max())


@pytest.mark.parametrize("family", [*FAMILIES, "qwen2"])
@torch.inference_mode()
def test_states_at_positions_are_the_whole_pass_states_there(family: str, tmp_path: Path) -> None:
    backbone = opened(family, tmp_path)
    assert backbone.reader.short == (family in SHORT)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, backbone.tokenizer.size, (3, 20), generator=generator)
    read = torch.tensor([[19, 4], [0, 11], [7, 7]])
    expected = backbone.last_states(ids).gather(1, read[..., None].expand(-1, -1, backbone.width))
    assert near(backbone.states_at(ids, read, use_cache=False), expected)
    lengths = torch.tensor([20, 12, 8])
    mask = (torch.arange(20) < lengths[:, None]).long()
    padded = backbone.last_states(ids, mask).gather(1, read[..., None].expand(-1, -1, backbone.width))
    assert near(backbone.states_at(ids, read, attention_mask=mask, use_cache=False), padded)


@pytest.mark.parametrize("family", SHORT)
@torch.inference_mode()
def test_packs_and_caches_are_read_alike(family: str, tmp_path: Path) -> None:
    backbone = opened(family, tmp_path)
    generator = np.random.default_rng(0)
    a, b, c = (generator.integers(0, backbone.tokenizer.size, size=size).astype(np.int32) for size in (5, 4, 7))
    trees = pack([a, np.concatenate([a, b]), np.concatenate([a, c]), c], 16)
    batch = packed_batch(trees)
    read = torch.stack([torch.from_numpy(np.resize(tree.read, 3).astype(np.int64)) for tree in trees])
    whole = backbone.packed_states(batch, MaskForm.FULL).gather(1, read[..., None].expand(-1, -1, backbone.width))
    assert near(backbone.states_at(batch.ids, read, **backbone.pack_arguments(batch, MaskForm.FULL)), whole)
    ids = torch.from_numpy(np.concatenate([a, b, c]).astype(np.int64))[None]
    cache = backbone.cache()
    backbone.states_at(ids[:, :6], torch.tensor([[0]]), past_key_values=cache, use_cache=True)
    behind = backbone.states_at(ids[:, 6:], torch.tensor([[3, 9]]), past_key_values=cache, use_cache=True)
    assert near(behind, backbone.last_states(ids)[:, [9, 15]])


@pytest.mark.parametrize("family", [*FAMILIES, "qwen2"])
@torch.inference_mode()
def test_reordered_weights_give_the_same_states(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = opened(family, tmp_path)
    ids, read = torch.arange(2 * 18).reshape(2, 18), torch.tensor([[17], [3]])
    expected = backbone.last_states(ids).gather(1, read[..., None].expand(-1, -1, backbone.width))
    monkeypatch.setattr(reader, "reordering_pays", lambda _: True)
    kinds = [type(module) for module in backbone.settle().reader._base.modules()]
    assert (ReorderedLinear in kinds) == (family in SHORT), "others may use a linear layer's weights in their own ways"
    assert family not in SHORT or torch.nn.Linear not in kinds
    assert near(backbone.states_at(ids, read, use_cache=False), expected)


@pytest.mark.parametrize("family", ["qwen3"])
@torch.inference_mode()
def test_a_compiled_graph_gives_the_same_states(family: str, tmp_path: Path) -> None:
    """The compiler's own backend is a matter of torch; what is captured of the model is ours."""
    backbone = opened(family, tmp_path).settle(compiler="eager")
    generator = torch.Generator().manual_seed(0)
    for length in (9, 20, 31):
        ids = torch.randint(0, backbone.tokenizer.size, (1, length), generator=generator)
        read = torch.tensor([[length - 1]])
        expected = backbone.last_states(ids)[:, -1:]
        assert near(backbone.states_at(ids, read, use_cache=False), expected)
    assert hasattr(backbone.reader._base, "_orig_mod")


def test_only_large_layers_in_single_precision_on_a_cpu_are_reordered() -> None:
    assert reordering_pays(torch.nn.Linear(512, 512))
    small, brief, elsewhere = (
        torch.nn.Linear(64, 64), torch.nn.Linear(512, 512).bfloat16(), torch.nn.Linear(512, 512, device="meta"),
    )  # fmt: skip
    assert not any(map(reordering_pays, (small, brief, elsewhere)))


def test_the_model_itself_stays_as_it_is(tmp_path: Path) -> None:
    backbone = opened("qwen3", tmp_path)
    before, modules = backbone.fingerprint, [type(module) for module in backbone.base.modules()]
    backbone.settle()
    assert backbone.reader.short
    backbone.take(backbone.model)
    assert backbone.fingerprint == before and [type(module) for module in backbone.base.modules()] == modules


def test_new_weights_are_read_with_the_new_weights(tmp_path: Path) -> None:
    backbone, other = opened("qwen3", tmp_path / "a"), open_family("qwen3", tmp_path / "b", seed=5)
    ids, read = torch.tensor([[3, 1, 4, 1, 5]]), torch.tensor([[4]])
    with torch.inference_mode():
        backbone.states_at(ids, read)
        backbone.take(other.model)
        assert near(backbone.states_at(ids, read)[0], other.last_states(ids)[0, -1:])


def test_only_what_gains_is_replaced(tmp_path: Path) -> None:
    base = opened("llama", tmp_path).base
    layers = base.layers
    sizes = [sum(weights.numel() for weights in layer.parameters()) for layer in layers]
    kept = sum(getattr(layers[-1].self_attn, name).weight.numel() for name in ("k_proj", "v_proj"))
    assert gain(layers) == pytest.approx((sizes[-1] - kept) / sum(sizes))
    assert can_read_short(base, "sdpa", None)
    assert not can_read_short(base, "eager", None) and not can_read_short(base, "sdpa", 16)
    deep = torch.nn.ModuleList(copy.deepcopy(layer) for _ in range(10) for layer in layers)
    assert gain(deep) < LEAST_GAIN
    base.layers = deep
    assert not can_read_short(base, "sdpa", None)
