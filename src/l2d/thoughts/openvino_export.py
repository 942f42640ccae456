"""A backbone as an OpenVINO graph with int8 weights, kept in a folder with what it was made from and its error.

The graph takes packs: token ids, depths and subtree ends, (packs, length) each, and the flat places to read. It makes
the mask itself and gives only the states that are read, so that no (packs, length, width) tensor leaves it.

Weights become one signed byte each and one scale per output, which the CPU plugin multiplies as bytes. They are never
left as bfloat16: that graph kills the process on some machines.
"""

from __future__ import annotations

import copy
import json
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from l2d.artifacts import atomic_folder, folder_checksums, read_json, sha256_text, verify_checksums, write_json
from l2d.backbone import Backbone, MaskForm, PackProbe, packed_batch
from l2d.backbone.masks import PackedBatch
from l2d.errors import ArtifactCorrupt, ArtifactMissing, EngineError, MissingDependency
from l2d.packing import pack
from l2d.thoughts.agreement import Agreement

FORMAT = 1
GRAPH, RECORD = "graph.xml", "export.json"
COMPRESSION = "int8"


def load_openvino() -> Any:
    """The package openvino.

    Raises:
        MissingDependency: it is not installed.
    """
    try:
        # It reports its own import over the network where its companion package is there. Barred, a stub answers.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
        import openvino
    except ImportError as error:
        raise MissingDependency(
            "the openvino engine needs openvino", cure="run: pip install 'l2d[openvino]', or use --engine torch"
        ) from error
    return openvino


@dataclass(frozen=True)
class Export:
    """A finished export.

    Args:
        folder: where graph and record lie.
        width: length of a thought.
        error: how near its thoughts are to the plain model's on the probe's prompts; None: not probed yet.
    """

    folder: Path
    width: int
    error: Agreement | None

    @property
    def graph(self) -> Path:
        """The file that OpenVINO reads; its weights lie beside it."""
        return self.folder / GRAPH


Probe = Callable[[Export], Agreement]
"""Thinks the probe's prompts with an export and with the plain model."""


def identity(fingerprint: str, form: MaskForm | None, version: str) -> dict[str, Any]:
    """What decides the bytes of an export.

    Args:
        fingerprint: of the backbone's weights.
        form: how its family takes a pack's mask.
        version: of openvino.
    """
    return {
        "format": FORMAT, "backbone": fingerprint, "form": form, "openvino": version, "compression": COMPRESSION
    }  # fmt: skip


def export_folder(engines: Path, fingerprint: str) -> Path:
    """Where a backbone's export lies below a run's folder of engines."""
    return engines / f"openvino-{fingerprint[:12]}-{COMPRESSION}"


def find_export(folder: Path, expected: dict[str, Any]) -> Export | None:
    """The export in a folder, its bytes compared with their checksums; None where there is none of this identity.

    Raises:
        ArtifactCorrupt: it was changed.
    """
    if not (folder / RECORD).is_file():
        return None
    cure = f"delete {folder}; --engine openvino makes it anew"
    record = read_json(folder / RECORD)
    try:
        if record["sha256"] != _digest(record):
            raise ArtifactCorrupt(f"{folder / RECORD} was changed since it was written", cure=cure)
        if record["identity"] != expected:
            return None
        verify_checksums(folder, record["files"])
        return Export(folder, record["width"], Agreement(**record["error"]))
    except (KeyError, TypeError, ArtifactMissing) as error:
        raise ArtifactCorrupt(f"{folder} is not a whole export", got=error, cure=cure) from error


def export(backbone: Backbone, probe: PackProbe, folder: Path, made_from: dict[str, Any], probed: Probe) -> Export:
    """Writes a backbone's graph; an earlier one in the folder is replaced in one step.

    Needs memory for a float32 copy of the weights where the backbone computes in another type.

    Args:
        backbone: any whose family can be packed, on the CPU.
        probe: what its opening probe found.
        folder: where to.
        made_from: `identity` of the export.
        probed: called with the unfinished export; says how near its thoughts are to the plain model's.

    Raises:
        EngineError: OpenVINO cannot convert this family.
    """
    openvino = load_openvino()
    if probe.form is None:
        raise EngineError(
            f"the openvino engine cannot take {backbone.name}", got=probe.reason,
            expected="a family that can be packed", cure="use --engine torch",
        )  # fmt: skip
    model = convert(backbone, probe.form)
    compress(model, tuple(backbone.model.get_input_embeddings().weight.shape))
    with atomic_folder(folder, overwrite=True) as made:
        openvino.save_model(model, made / GRAPH, compress_to_fp16=False)
        del model
        error = probed(Export(made, backbone.width, None))
        files = folder_checksums(made)
        record = {"identity": made_from, "width": backbone.width, "error": error._asdict(), "files": files}
        write_json(made / RECORD, {**record, "sha256": _digest(record)})
    return Export(folder, backbone.width, error)


def _digest(record: dict[str, Any]) -> str:
    return sha256_text(json.dumps({key: record[key] for key in record if key != "sha256"}, sort_keys=True))


class _ReadStates(nn.Module):
    """The states of packs at given places: what the graph computes."""

    def __init__(self, backbone: Backbone, form: MaskForm) -> None:
        super().__init__()
        self.model = backbone.model
        self.backbone, self.form = backbone, form

    def forward(self, ids: torch.Tensor, depth: torch.Tensor, end: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
        """States at `read`, counted over the flattened packs. Shape: (read, width)."""
        states = self.backbone.packed_states(PackedBatch(ids, depth, end, depth, depth), self.form)
        return states.reshape(-1, states.shape[-1]).index_select(0, read).float()


@torch.no_grad()
def convert(backbone: Backbone, form: MaskForm) -> Any:
    """The traced graph, computing in float32, with both sizes of a batch of packs open.

    Raises:
        EngineError: the tracer or the converter refuses something that this family does.
    """
    openvino = load_openvino()
    plain = backbone
    if backbone.dtype != torch.float32:
        plain = Backbone(copy.deepcopy(backbone.model).float(), backbone.tokenizer, backbone.name)
    some = [np.array(ids, dtype=np.int32) for ids in ([1, 2, 3, 4, 5], [1, 2, 3, 1, 1, 2])]
    batch = packed_batch(pack(some, 64) * 2)
    example = (batch.ids, batch.depth, batch.end, torch.tensor([2, 5, 9]))
    shapes = [openvino.PartialShape([-1, -1])] * 3 + [openvino.PartialShape([-1])]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return openvino.convert_model(_ReadStates(plain, form).eval(), example_input=example, input=shapes)
    except Exception as error:  # whatever tracer and converter throw at a model they do not know
        first = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise EngineError(
            f"OpenVINO cannot convert {backbone.name}", got=first, cure="use --engine torch for this family"
        ) from error


def compress(model: Any, table: tuple[int, ...]) -> int:
    """Turns the matrices of a graph into bytes with a scale per output, in place.

    Args:
        model: a graph of `convert`.
        table: shape of the input embeddings, whose rows are compressed likewise and looked up as bytes.

    Returns:
        How many matrices there were.
    """
    load_openvino()
    from openvino import opset13 as ops

    found = 0
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        if kind == "MatMul":
            weights = _constant(node.input_value(1))
            if weights is None or weights.ndim != 2:
                continue
            outputs_first = bool(node.get_attributes()["transpose_b"])
            values, scale = quantised(weights if outputs_first else weights.T)
            matrix = ops.multiply(ops.convert(ops.constant(values), "f32"), ops.constant(scale))
            fresh = ops.matmul(node.input_value(0), matrix, bool(node.get_attributes()["transpose_a"]), True)
        elif kind == "Gather":
            weights = _constant(node.input_value(0))
            if weights is None or weights.shape != table:
                continue
            values, scale = quantised(weights)
            # Looked up before they are converted: the other way round the table would be unfolded when it is loaded.
            rows, sizes = (
                ops.gather(ops.constant(part), node.input_value(1), node.input_value(2)) for part in (values, scale)
            )
            fresh = ops.multiply(ops.convert(rows, "f32"), sizes)
        else:
            continue
        node.output(0).replace(fresh.output(0))
        found += 1
    return found


def _constant(value: Any) -> NDArray[np.float32] | None:
    """A constant of the graph; None for what is computed."""
    node = value.get_node()
    return node.get_data().astype(np.float32) if node.get_type_name() == "Constant" else None


def quantised(matrix: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Rows as bytes with one scale each: `values * scale` is within half a step of the matrix.

    Args:
        matrix: Shape: (outputs, inputs).

    Returns:
        values, shape (outputs, inputs), and scale, shape (outputs, 1).
    """
    scale = np.abs(matrix).max(axis=1, keepdims=True) / 127
    scale[scale == 0] = 1
    return np.ascontiguousarray(np.rint(matrix / scale).astype(np.int8)), scale.astype(np.float32)
