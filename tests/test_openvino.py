"""The OpenVINO engine: int8 weights within half a step, thoughts near the plain model's, exports whole or remade."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from families import open_family
from l2d.backbone import Backbone, probe_packing
from l2d.errors import ArtifactCorrupt, ConfigError, EngineError
from l2d.thoughts import OpenVinoThinker, TorchThinker, openvino_engine
from l2d.thoughts.agreement import agreement
from l2d.thoughts.openvino_engine import TOLERANCE, check_compression, open_openvino
from l2d.thoughts.openvino_export import RECORD, Export, compress, convert, export_folder, load_openvino, quantised
from shop import flipped
from test_thoughts import oracle, some_prompts

pytest.importorskip("openvino", reason="openvino is not installed: pip install 'l2d[openvino]'")


def plain_thinker(family: str, folder: Path, dtype: str = "float32") -> TorchThinker:
    backbone = open_family(family, folder, dtype)
    return TorchThinker(backbone, probe_packing(backbone, longest=256))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> TorchThinker:
    return plain_thinker("qwen3", tmp_path_factory.mktemp("qwen3"))


@pytest.fixture(scope="module")
def made(plain: TorchThinker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of engines with one export in it; tests leave it as it is."""
    engines = tmp_path_factory.mktemp("engines")
    opened(plain, engines)
    return engines


def opened(plain: TorchThinker, engines: Path, **options: object) -> OpenVinoThinker | None:
    prompts = some_prompts(plain.backbone.tokenizer.size)
    return open_openvino(plain, engines, plain.backbone.fingerprint, prompts, **options)  # type: ignore[arg-type]


def test_bytes_and_scales_are_within_half_a_step_of_the_matrix() -> None:
    matrix = np.random.default_rng(0).standard_normal((7, 40)).astype(np.float32)
    matrix[2] = 0
    matrix[3] *= 1e-4
    values, scale = quantised(matrix)
    assert (values.dtype, values.shape, scale.dtype, scale.shape) == (np.int8, (7, 40), np.float32, (7, 1))
    assert (np.abs(values * scale - matrix) <= 0.5001 * scale).all()
    assert np.abs(values).max(axis=1).tolist() == [127, 127, 0, 127, 127, 127, 127]


@torch.no_grad()
def as_bytes(backbone: Backbone) -> int:
    """Rounds the matrices and the table of embeddings of a backbone to bytes times scales; how many there are."""
    layers = matrices(backbone)
    for layer in layers:
        outputs_first = type(layer).__name__ != "Conv1D"
        matrix = layer.weight.numpy() if outputs_first else layer.weight.numpy().T
        values, scale = quantised(matrix)
        layer.weight.copy_(torch.from_numpy(values * scale if outputs_first else (values * scale).T))
    return len(layers)


def matrices(backbone: Backbone) -> list[torch.nn.Module]:
    linear = [module for module in backbone.base.modules() if type(module).__name__ in ("Linear", "Conv1D")]
    return [backbone.model.get_input_embeddings(), *linear]


def held(folder: Path) -> Counter[str]:
    """Numbers in the constants of a saved graph, by their type."""
    found: Counter[str] = Counter()
    for node in load_openvino().Core().read_model(folder / "graph.xml").get_ops():
        if node.get_type_name() == "Constant":
            found[node.get_element_type().get_type_name()] += int(np.prod(node.get_output_shape(0)))
    return found


@pytest.mark.parametrize("family", ["qwen3", "gpt2", "gemma3"])  # each with a way of its own: heads, biases, two masks
def test_the_graph_computes_the_plain_models_states(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To rounding, once its matrices are rounded to what the graph holds: bytes with a scale per row."""
    exact = {**openvino_engine.SETTINGS, "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
    monkeypatch.setattr(openvino_engine, "SETTINGS", exact)
    plain = plain_thinker(family, tmp_path / "model")
    backbone, prompts = plain.backbone, some_prompts(plain.backbone.tokenizer.size)
    assert plain.probe.form is not None
    graph = convert(backbone, plain.probe.form)
    compressed = compress(graph, tuple(backbone.model.get_input_embeddings().weight.shape))
    thinker = saved(graph, tmp_path / "bytes", plain.width)

    states = oracle(backbone, prompts)
    assert compressed == as_bytes(backbone)
    rounded = oracle(backbone, prompts)
    near = 1e-5 * np.abs(rounded).max()
    assert np.abs(rounded - states).max() > 10 * near
    order = np.random.default_rng(1).permutation(len(prompts))
    assert np.abs(thinker.think(prompts) - rounded).max() <= near
    assert np.abs(thinker.think([prompts[i] for i in order]) - rounded[order]).max() <= near
    for prompt, state in zip(prompts, rounded, strict=True):
        assert np.abs(thinker.think([prompt])[0] - state).max() <= near
    constants, whole = held(tmp_path / "bytes"), sum(layer.weight.numel() for layer in matrices(backbone))
    assert constants["i8"] == whole
    rest = sum(weights.numel() for weights in backbone.base.parameters()) - whole
    assert constants["f32"] < rest + whole / 8, "scales, norms and biases, and no matrix"


def saved(graph: object, folder: Path, width: int) -> OpenVinoThinker:
    folder.mkdir()
    load_openvino().save_model(graph, folder / "graph.xml", compress_to_fp16=False)
    return OpenVinoThinker(Export(folder, width, None), pack_tokens=40)


def test_int8_thoughts_are_near_the_plain_models(plain: TorchThinker, made: Path) -> None:
    prompts = some_prompts(plain.backbone.tokenizer.size)
    thinker, calls = opened(plain, made), list[tuple[int, int]]()
    assert thinker is not None
    found, expected = thinker.think(prompts, lambda *done: calls.append(done)), oracle(plain.backbone, prompts)
    assert found.dtype == np.float32
    assert agreement(found, expected).within(*TOLERANCE)
    assert not agreement(found, expected).within(0.9999999, 1e-7), "nothing was rounded"
    alone = np.concatenate([thinker.think([prompt]) for prompt in prompts])
    assert agreement(alone, expected).within(*TOLERANCE)
    assert thinker.think([]).shape == (0, plain.width)
    assert calls[-1] == (len(prompts), len(prompts))


def test_a_bfloat16_backbone_computes_in_float32(tmp_path: Path) -> None:
    plain = plain_thinker("qwen3", tmp_path / "model", "bfloat16")
    thinker = opened(plain, tmp_path)
    assert thinker is not None
    assert plain.backbone.dtype == torch.bfloat16
    prompts = some_prompts(plain.backbone.tokenizer.size)
    plain.backbone.model.float()
    assert agreement(thinker.think(prompts), oracle(plain.backbone, prompts)).within(*TOLERANCE)
    compiled = thinker._request.get_compiled_model()
    assert compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"
    assert compiled.get_property("INFERENCE_NUM_THREADS") == torch.get_num_threads()


def test_an_export_is_made_once_and_used_again(plain: TorchThinker, made: Path) -> None:
    folder = export_folder(made, plain.backbone.fingerprint)
    assert [place.name for place in made.iterdir()] == [folder.name]
    said: list[str] = []
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.iterdir()}
    first, second = opened(plain, made, notice=said.append), opened(plain, made, make=False)
    assert {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.iterdir()} == before
    assert said == []
    assert first is not None
    assert second is not None
    prompts = some_prompts(plain.backbone.tokenizer.size)
    assert np.array_equal(first.think(prompts), second.think(prompts))
    record = json.loads((folder / RECORD).read_text())
    assert record["error"]["cosine"] >= TOLERANCE.cosine
    assert record["identity"]["backbone"] == plain.backbone.fingerprint


def test_an_export_of_anything_else_is_made_anew(
    plain: TorchThinker, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(made, tmp_path / "engines")
    before = openvino_engine.identity
    for key in ("format", "backbone", "form", "compression", "openvino"):
        other = {key: "another"}
        monkeypatch.setattr(openvino_engine, "identity", lambda *parts, other=other: {**before(*parts), **other})
        assert opened(plain, tmp_path / "engines", make=False) is None
    said: list[str] = []
    assert opened(plain, tmp_path / "engines", notice=said.append) is not None
    assert len(said) == 1
    assert opened(plain, tmp_path / "engines", make=False) is not None


@pytest.mark.parametrize("name", ["graph.bin", "graph.xml", RECORD])
def test_a_changed_export_is_refused(plain: TorchThinker, made: Path, name: str) -> None:
    folder = export_folder(made, plain.backbone.fingerprint)
    with flipped(folder / name), pytest.raises(ArtifactCorrupt, match="openvino"):
        opened(plain, made)


def test_an_export_that_lost_a_file_is_refused(plain: TorchThinker, made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "engines")
    (export_folder(tmp_path / "engines", plain.backbone.fingerprint) / "graph.bin").unlink()
    with pytest.raises(ArtifactCorrupt, match="not a whole export"):
        opened(plain, tmp_path / "engines")


def test_thoughts_beyond_the_tolerance_are_refused_then_and_later(tmp_path: Path) -> None:
    chaotic = plain_thinker("llama", tmp_path / "model")  # large random weights that no norm tames
    said: list[str] = []
    for _ in range(2):
        with pytest.raises(EngineError, match=r"int8 weights do not give.*cosine 0.*--engine torch"):
            opened(chaotic, tmp_path / "engines", notice=said.append)
    assert len(said) == 1, "the second refusal comes from the record"


def test_uncompressed_bfloat16_is_refused() -> None:
    with pytest.raises(ConfigError, match="kills the process"):
        check_compression("bf16")
    with pytest.raises(ConfigError, match="unknown compression"):
        check_compression("int3")


def test_a_family_that_cannot_be_packed_is_refused(tmp_path: Path) -> None:
    plain = plain_thinker("lfm2", tmp_path / "model")
    with pytest.raises(EngineError, match="--engine torch"):
        opened(plain, tmp_path / "engines")
    assert not (tmp_path / "engines").exists()


def test_what_the_converter_refuses_is_said_in_one_line(plain: TorchThinker, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> torch.Tensor:
        raise RuntimeError("an operation nobody knows\nand a trace")

    monkeypatch.setattr(plain.backbone, "packed_states", broken)
    assert plain.probe.form is not None
    with pytest.raises(EngineError, match=r"cannot convert.*for this family") as caught:
        convert(plain.backbone, plain.probe.form)
    assert "\n" not in str(caught.value)
