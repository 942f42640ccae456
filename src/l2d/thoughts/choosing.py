"""Which engine thinks: the one that was asked for, or, with auto, the fastest that is ready and right here."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from l2d.artifacts import read_json, write_json
from l2d.backbone import machine
from l2d.errors import ArtifactCorrupt, ConfigError, InputError
from l2d.thoughts.openvino_engine import OpenVinoThinker, open_openvino
from l2d.thoughts.openvino_export import RECORD, export_folder, load_openvino
from l2d.thoughts.torch_engine import TorchThinker
from l2d.thoughts.vllm_engine import VllmThinker

if TYPE_CHECKING:
    from l2d.thoughts import Thinker

ENGINES = ("auto", "torch", "openvino", "vllm")
SERVER = "L2D_VLLM_URL"
"""Where the vLLM server is, unless the option says so."""

WORTHWHILE = 0.8
"""Of torch's time, the most that auto takes another engine for."""

TRIAL_SECONDS, TRIAL_ROUNDS = 0.05, 9
"""How long two engines are timed against each other, and how often at most."""

SPEEDS = "speeds.json"


@dataclass(frozen=True)
class Engine:
    """An engine that was chosen.

    Args:
        name: `torch`, `openvino-int8` or `vllm`: what thoughts are labelled with.
        thinker: what thinks.
        reason: one line for people: what was picked, and why.
    """

    name: str
    thinker: Thinker
    reason: str


@dataclass(frozen=True)
class Ground:
    """What engines are made from.

    Args:
        plain: the torch engine, which every other one is measured against.
        engines: the run's folder of exports.
        fingerprint: of the backbone's weights.
        prompts: gives a handful of the run's own prompts.
    """

    plain: TorchThinker
    engines: Path
    fingerprint: str
    prompts: Callable[[], Sequence[NDArray[np.int32]]]

    @property
    def export(self) -> Path:
        """Where the OpenVINO export lies or would lie."""
        return export_folder(self.engines, self.fingerprint)


def check_engine(asked: str) -> None:
    """Refuses a name that no engine has, before anything is opened.

    Raises:
        ConfigError: not one of `ENGINES`.
    """
    name, _, detail = asked.partition("=")
    if name not in ENGINES or (detail and name in ("auto", "torch")):
        raise ConfigError("unknown engine", got=asked, expected=f"{', '.join(ENGINES)} or vllm=http://HOST:PORT")


def choose_engine(asked: str, ground: Ground, notice: Callable[[str], None]) -> Engine:
    """The engine that was asked for, or the one that auto takes.

    Args:
        asked: one of `ENGINES`; `vllm=URL` names the server.
        ground: what engines are made from.
        notice: called with warnings, and before something that takes long.

    Raises:
        ConfigError: no such engine.
        InputError: the engine that was asked for cannot be used here. auto warns instead, and takes torch.
    """
    check_engine(asked)
    name, _, detail = asked.partition("=")
    if name == "auto":
        return _auto(ground, notice)
    if name == "torch":
        return Engine("torch", ground.plain, "torch, as asked")
    if name == "vllm":
        return _vllm(detail or os.environ.get(SERVER, ""), ground)
    thinker = open_openvino(
        ground.plain, ground.engines, ground.fingerprint, ground.prompts(), compression=detail or "int8", notice=notice
    )
    assert thinker is not None
    return Engine("openvino-int8", thinker, "openvino with int8 weights, as asked")


def _vllm(url: str, ground: Ground) -> Engine:
    if not url:
        raise ConfigError("no vLLM server is named", cure=f"pass --engine vllm=http://HOST:PORT, or set {SERVER}")
    thinker = VllmThinker(url, ground.plain.width)
    prompts = ground.prompts()[:2]
    found = thinker.require_same(prompts, ground.plain.think(prompts))
    return Engine("vllm", thinker, f"vllm at {thinker.url}, as asked; against torch: {found}")


def _auto(ground: Ground, notice: Callable[[str], None]) -> Engine:
    device = ground.plain.backbone.device

    def plain(why: str) -> Engine:
        return Engine("torch", ground.plain, f"torch: {why}")

    if device.type != "cpu":
        return plain(f"the backbone is on {device}")
    if ground.plain.backbone.compiled:
        return plain("it is compiled, as asked")
    try:
        if not (ground.export / RECORD).is_file():
            return plain("this run has no OpenVINO export; --engine openvino makes one")
        known = _remembered(ground)
        if known is not None and known > WORTHWHILE:
            return plain(_compared(known))
        thinker = open_openvino(ground.plain, ground.engines, ground.fingerprint, (), make=False)
        if thinker is None:
            return plain("this run's OpenVINO export was made by another version; --engine openvino makes it anew")
        # Timed once and remembered: two openings of a run must not answer with different engines.
        ratio = known if known is not None else _timed(ground, thinker)
    except (InputError, OSError) as error:
        notice(f"warning: the openvino engine cannot be used, torch thinks instead: {error}")
        return plain("the openvino engine cannot be used")
    if ratio > WORTHWHILE:
        return plain(_compared(ratio))
    return Engine("openvino-int8", thinker, f"openvino with int8 weights: {_compared(ratio)}")


def _compared(ratio: float) -> str:
    return f"a prompt takes OpenVINO {ratio:.2f} of torch's time on this machine"


def _timed(ground: Ground, thinker: OpenVinoThinker) -> float:
    """Time of a prompt over torch's, both taken in turn; remembered in the run."""
    prompts = ground.prompts()
    ratios: list[float] = []
    for prompt in prompts[:2]:  # first calls allocate
        _seconds(ground.plain, prompt), _seconds(thinker, prompt)
    begun = time.perf_counter()
    while len(ratios) < TRIAL_ROUNDS and (not ratios or time.perf_counter() - begun < TRIAL_SECONDS):
        prompt = prompts[len(ratios) % min(2, len(prompts))]
        ratios.append(_seconds(thinker, prompt) / _seconds(ground.plain, prompt))
    ratio = float(np.median(ratios))
    write_json(ground.engines / SPEEDS, {**_speeds(ground), _key(ground): ratio})
    return ratio


def _seconds(thinker: Thinker, prompt: NDArray[np.int32]) -> float:
    begun = time.perf_counter()
    thinker.think([prompt])
    return time.perf_counter() - begun


def _remembered(ground: Ground) -> float | None:
    found = _speeds(ground).get(_key(ground))
    return float(found) if isinstance(found, int | float) else None


def _speeds(ground: Ground) -> dict[str, object]:
    file = ground.engines / SPEEDS
    try:
        found = read_json(file) if file.is_file() else {}
    except ArtifactCorrupt:  # a time is soon taken again
        return {}
    return found if isinstance(found, dict) else {}


def _key(ground: Ground) -> str:
    """What a ratio of times depends on."""
    here = machine()
    dtype = str(ground.plain.backbone.dtype).removeprefix("torch.")
    parts = (ground.export.name, load_openvino().__version__, here["cpu"], f"{torch.get_num_threads()} threads", dtype)
    return "; ".join(parts)
