"""Backbones from disk: which mask each family takes, adapters, fingerprints, scratch models, tokenizers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from families import FAMILIES, PACKED, SLIDING, TITLES, WINDOW, open_family, save_family, tokenizer
from l2d.backbone import Backbone, MaskForm, learn_tokenizer, packed_batch, probe_packing, resolve_dtype
from l2d.backbone import scratch_backbone as scratch
from l2d.backbone.masks import ancestor_mask, attention_masks
from l2d.errors import ConfigError
from l2d.packing import ROOT, pack

FORMS = {
    "llama": MaskForm.FULL,
    "qwen3": MaskForm.FULL,
    "gpt2": MaskForm.FULL,
    "gemma2": MaskForm.MAPPING,
    "gemma3": MaskForm.MAPPING,
    "mistral": MaskForm.WINDOWED,
}


@pytest.mark.parametrize("family", PACKED)
def test_the_probe_finds_the_mask_that_a_family_takes(family: str, tmp_path: Path) -> None:
    backbone = open_family(family, tmp_path)
    probe = probe_packing(backbone, longest=256)
    assert probe.form == FORMS[family], probe.reason
    assert probe.error <= 1e-5
    assert backbone.window == (WINDOW if family in SLIDING else None)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_layers_that_are_not_attention_are_never_packed(dtype: str, tmp_path: Path) -> None:
    probe = probe_packing(open_family("lfm2", tmp_path, dtype), longest=256)
    assert probe.form is None
    assert "conv" in probe.reason


def test_convolutions_fail_the_trial_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A family whose configuration does not name its layers is caught by the figures.
    backbone = open_family("lfm2", tmp_path)
    monkeypatch.setattr(Backbone, "layer_types", property(lambda _: set()))
    probe = probe_packing(backbone, longest=256)
    assert probe.form is None
    assert probe.error > 1e-3


def test_a_window_that_prompts_never_fill_does_not_matter(tmp_path: Path) -> None:
    backbone = open_family("mistral", tmp_path)
    # Refused unless the mask is windowed: the trial's own prompts are longer than 16.
    assert probe_packing(backbone, longest=WINDOW).form == MaskForm.WINDOWED
    backbone.model.config.sliding_window = 200
    assert probe_packing(backbone, longest=200).form == MaskForm.FULL
    assert probe_packing(backbone, longest=201).form == MaskForm.WINDOWED


def test_the_masks_are_those_of_the_ancestors() -> None:
    """Against a walk up the parents; the window counts ancestors, not places in the pack."""
    generator = np.random.default_rng(0)
    sequences = [generator.integers(0, 2, size=size).astype(np.int32) for size in (9, 7, 7, 6, 3)]
    trees = [pack(sequences, 99)[0], pack(sequences[:2], 99)[0]]
    batch = packed_batch(trees)
    masks = attention_masks(batch.end, batch.depth, MaskForm.MAPPING, 4, None)
    assert isinstance(masks, dict)
    for line, tree in enumerate(trees):
        for node in range(len(tree)):
            above = [node]
            while tree.parent[above[-1]] != ROOT:
                above.append(int(tree.parent[above[-1]]))
            for name, seen in (("full_attention", above), ("sliding_attention", above[:4])):
                assert torch.nonzero(masks[name][line, 0, node]).flatten().tolist() == sorted(seen)
    # Padding sees itself alone: a line without any True turns into NaN.
    padding = ancestor_mask(batch.end)[1, 0, len(trees[1]) :]
    assert padding.sum().item() == len(padding)
    additive = attention_masks(batch.end, batch.depth, MaskForm.WINDOWED, 4, torch.float32)
    assert isinstance(additive, torch.Tensor)
    assert torch.equal(additive == 0, masks["sliding_attention"])
    assert torch.equal(additive == -torch.inf, ~masks["sliding_attention"])


def adapter_on(folder: Path, out: Path) -> Path:
    """Writes an adapter whose every matrix is random: a fresh one has zeros in B and would change nothing."""
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        LoraConfig(r=3, lora_alpha=12, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM"),
    )
    generator = torch.Generator().manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data = torch.randn(weight.shape, generator=generator) * 0.1
    model.save_pretrained(out)
    return out


def test_an_adapter_is_merged_as_by_hand(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    folder = save_family("llama", tmp_path / "base")
    adapter = adapter_on(folder, tmp_path / "adapter")
    plain = Backbone.open(folder, dtype="float32", device="cpu").model.state_dict()
    opened = Backbone.open(folder, adapter=adapter, dtype="float32", device="cpu").model.state_dict()
    factors = load_file(adapter / "adapter_model.safetensors")
    changed = 0
    for name, weight in plain.items():
        key = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{key}.lora_A.weight" in factors:
            changed += 1
            weight = weight + 12 / 3 * factors[f"{key}.lora_B.weight"] @ factors[f"{key}.lora_A.weight"]
        torch.testing.assert_close(opened[name], weight, rtol=1e-6, atol=1e-6)
    assert changed == 6
    assert opened.keys() == plain.keys()


def test_a_bfloat16_backbone_is_merged_in_float32_and_then_cast(tmp_path: Path) -> None:
    folder = save_family("llama", tmp_path / "base")
    adapter = adapter_on(folder, tmp_path / "adapter")
    wide = Backbone.open(folder, adapter=adapter, dtype="float32", device="cpu").model.state_dict()
    cast = Backbone.open(folder, adapter=adapter, dtype="bfloat16", device="cpu").model.state_dict()
    assert all(torch.equal(cast[name], wide[name].bfloat16()) for name in wide)


def test_a_wrong_adapter_or_folder_is_refused(tmp_path: Path) -> None:
    adapter = adapter_on(save_family("llama", tmp_path / "llama"), tmp_path / "adapter")
    other = save_family("gpt2", tmp_path / "gpt2")
    with pytest.raises(ConfigError, match="adapter"):
        Backbone.open(other, adapter=adapter, device="cpu")
    with pytest.raises(ConfigError, match="adapter"):
        Backbone.open(other, adapter=tmp_path / "nothing", device="cpu")
    with pytest.raises(ConfigError, match="cannot load a causal LM"):
        Backbone.open(tmp_path / "nothing", device="cpu")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="cannot load a causal LM"):
        Backbone.open(tmp_path / "empty", device="cpu")


def test_an_adapter_of_another_width_is_refused(tmp_path: Path) -> None:
    adapter = adapter_on(save_family("llama", tmp_path / "llama"), tmp_path / "adapter")
    wider = scratch("scratch:tiny", TITLES)
    wider.save(tmp_path / "wider")
    with pytest.raises(ConfigError, match="adapter"):
        Backbone.open(tmp_path / "wider", adapter=adapter, device="cpu")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_fingerprint_follows_the_weights(family: str, tmp_path: Path) -> None:
    backbone = open_family(family, tmp_path / "one")
    backbone.save(tmp_path / "again")
    assert Backbone.open(tmp_path / "again", dtype="float32", device="cpu").fingerprint == backbone.fingerprint
    before = backbone.fingerprint
    weight = next(backbone.model.parameters())
    with torch.no_grad():
        weight.view(-1)[-1] += 1e-6 + weight.view(-1)[-1].abs() * 1e-6
    backbone.take(backbone.model)
    assert backbone.fingerprint != before


def test_a_fingerprint_follows_the_computation_and_the_dtype(tmp_path: Path) -> None:
    backbone = open_family("llama", tmp_path)
    before = backbone.fingerprint
    backbone.model.config.rms_norm_eps = 1e-3
    backbone.take(backbone.model)
    assert backbone.fingerprint != before
    assert Backbone.open(tmp_path, dtype="bfloat16", device="cpu").fingerprint != before


def test_scratch_is_decided_by_its_seed() -> None:
    state = torch.random.get_rng_state()
    one, same, other = (scratch("scratch:tiny", TITLES, seed=seed) for seed in (3, 3, 4))
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert torch.equal(state, torch.random.get_rng_state()), "the global generator is left alone"
    assert (one.width, len(one.model.model.layers), one.window) == (128, 2, None)
    assert not one.model.training
    with pytest.raises(ConfigError, match="scratch:tiny"):
        scratch("scratch:huge", TITLES)


def test_a_learned_tokenizer_is_decided_by_its_titles(tmp_path: Path) -> None:
    one, same, other = learn_tokenizer(TITLES, 320), learn_tokenizer(TITLES, 320), learn_tokenizer(TITLES[:9], 320)
    texts = [*TITLES, "naïve café 日本語 \t x", "<|eos|>"]
    assert one.encode(texts, special=False) == same.encode(texts, special=False)
    assert one.fingerprint == same.fingerprint != other.fingerprint
    one.save(tmp_path)
    assert type(one).open(str(tmp_path)).fingerprint == one.fingerprint
    with pytest.raises(ConfigError, match="tokenizer"):
        type(one).open(str(tmp_path / "nothing"))


def test_a_learned_tokenizer_reads_any_text() -> None:
    words = tokenizer()
    for text in (" red river one", " naïve café 日本語\n", " 🎸\x00"):
        assert words.decode(words.encode([text], special=False)[0]) == text


def test_dtypes_are_named_and_checked() -> None:
    cpu = torch.device("cpu")
    assert resolve_dtype("bfloat16", cpu, 8) == torch.bfloat16
    assert resolve_dtype("auto", cpu, 8) == torch.float32
    with pytest.raises(ConfigError, match="float32"):
        resolve_dtype("float16", cpu, 8)
