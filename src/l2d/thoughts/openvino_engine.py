"""The OpenVINO engine: int8 weights on a CPU, from an export that is kept in the run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from l2d.errors import ConfigError, EngineError
from l2d.packing import pack
from l2d.thoughts.agreement import Agreement, agreement
from l2d.thoughts.openvino_export import Export, export, export_folder, find_export, identity, load_openvino
from l2d.thoughts.torch_engine import TorchThinker

PACK_TOKENS = 256
"""Nodes of a pack: 256 took .65-.7 of the time of 512 and half of that of 1,024."""

GROUP = 256
"""Activations that share a scale when they are multiplied as bytes: 128 took a tenth longer, 1,024 as long."""

TOLERANCE = Agreement(cosine=0.99, stretch=0.05)
"""Between thoughts of this engine and of the plain model, on the probe's prompts. Tuned backbones reach .999."""

SETTINGS: Mapping[str, Any] = {
    "PERFORMANCE_HINT": "LATENCY",
    "INFERENCE_PRECISION_HINT": "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": GROUP,
    "ENABLE_CPU_PINNING": False,  # two pinned processes would share one core and leave the other idle
}
"""What is set beside the number of threads. Left to itself, the plugin picks bfloat16 where the processor has it."""


class OpenVinoThinker:
    """Thinks with an exported graph.

    Args:
        made: the export.
        threads: of a computation; None for as many as torch uses.
        pack_tokens: nodes of a pack.

    Raises:
        EngineError: OpenVINO cannot load the graph.
    """

    def __init__(self, made: Export, *, threads: int | None = None, pack_tokens: int = PACK_TOKENS) -> None:
        self.width = made.width
        self.pack_tokens = pack_tokens
        settings = {**SETTINGS, "INFERENCE_NUM_THREADS": threads or torch.get_num_threads()}
        try:
            self._request = load_openvino().Core().compile_model(made.graph, "CPU", settings).create_infer_request()
        except RuntimeError as error:
            first = str(error).splitlines()[0][:200]
            raise EngineError(
                f"OpenVINO cannot load {made.graph}", got=first, cure=f"delete {made.folder}, or use --engine torch"
            ) from error
        self._turn = threading.Lock()

    def think(
        self, prompts: Sequence[NDArray[np.int32]], progress: Callable[[int, int], None] | None = None
    ) -> NDArray[np.float32]:
        """Thoughts of prompts, in their order. Shape: (prompts, width)."""
        thoughts = np.empty((len(prompts), self.width), dtype=np.float32)
        done = 0
        for tree in pack(prompts, self.pack_tokens):
            columns = [column.astype(np.int64)[None] for column in (tree.ids, tree.depth, tree.end)]
            with self._turn:
                thoughts[tree.sequences] = self._request.infer([*columns, tree.read.astype(np.int64)])[0]
            done += len(tree.sequences)
            if progress is not None:
                progress(done, len(prompts))
        return thoughts


def open_openvino(
    plain: TorchThinker,
    engines: Path,
    fingerprint: str,
    prompts: Sequence[NDArray[np.int32]],
    *,
    compression: str = "int8",
    make: bool = True,
    refuse: bool = True,
    notice: Callable[[str], None] | None = None,
) -> OpenVinoThinker | None:
    """The engine for a backbone, from its export in a run; makes the export where there is none that fits.

    Args:
        plain: the torch engine of the tuned backbone.
        engines: the run's folder of exports.
        fingerprint: of the backbone's weights.
        prompts: a handful that a new export is compared with the plain model on.
        compression: only `int8`.
        make: whether an export may be made; without one that fits, the answer is None otherwise.
        refuse: whether thoughts too far from the plain model's are refused; only measurements pass over it.
        notice: called with a line before an export is made, which takes seconds to a minute.

    Raises:
        MissingDependency: openvino is not installed.
        ConfigError: another compression.
        EngineError: no CPU, a family that cannot be converted, or thoughts too far from the plain model's.
        ArtifactCorrupt: the export was changed.
    """
    check_compression(compression)
    backbone = plain.backbone
    if backbone.device.type != "cpu":
        raise EngineError(
            "the openvino engine computes on the CPU", got=backbone.device, cure="pass --device cpu, or --engine torch"
        )
    made_from = identity(fingerprint, plain.probe.form, load_openvino().__version__)
    folder = export_folder(engines, fingerprint)
    made = find_export(folder, made_from)
    if made is None and not make:
        return None
    if made is None:
        if notice is not None:
            notice(f"openvino: making an int8 export in {folder}")
        made = export(backbone, plain.probe, folder, made_from, partial(_agreement, plain, prompts))
    if refuse and (made.error is None or not made.error.within(*TOLERANCE)):
        raise EngineError(
            f"int8 weights do not give the thoughts of {backbone.name}",
            got=made.error, expected=TOLERANCE, cure="use --engine torch",
        )  # fmt: skip
    return OpenVinoThinker(made)


def check_compression(compression: str) -> None:
    """Refuses what is known to kill the process, and what does not exist.

    Raises:
        ConfigError: anything but int8.
    """
    if compression in ("bf16", "bfloat16", "none"):
        raise ConfigError(
            "the openvino engine does not take uncompressed weights", got=compression, expected="int8",
            cure="use --engine openvino, or torch; uncompressed bfloat16 there kills the process on some machines",
        )  # fmt: skip
    if compression != "int8":
        raise ConfigError("unknown compression of the openvino engine", got=compression, expected="int8")


def _agreement(plain: TorchThinker, prompts: Sequence[NDArray[np.int32]], made: Export) -> Agreement:
    return agreement(OpenVinoThinker(made).think(prompts), plain.think(prompts))
