"""`l2d doctor`: what this machine computes fast, and whether a run is whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from l2d.cli.display import table
from l2d.cli.options import Device

PROBED_WIDTH = 1024
"""Width of the matrix product that float32 and bfloat16 are compared on: that of a 0.6B model."""

Finding = tuple[str, str]


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("doctor", epilog="Example: `l2d doctor runs/shop`")(doctor)


def doctor(
    run: Annotated[
        Path | None,
        typer.Argument(metavar="[RUN]", help="A run directory to check, every byte of it.", show_default=False),
    ] = None,
    device: Device = "auto",
) -> None:
    """Say versions and what this machine computes fast; with a run, check its bytes and the packing of its backbone."""
    findings = [*versions(), *machine(run or Path.cwd())]
    table(("machine", ""), findings, left=(0, 1))
    if run is not None:
        table(("run", ""), list(health(run, device)), left=(0, 1))


def versions() -> Iterator[Finding]:
    """Versions of what decides the numbers."""
    from l2d.run import versions as installed

    yield from installed().items()


def machine(place: Path) -> Iterator[Finding]:
    """Cores, memory, disk and what the processor gains in bfloat16."""
    import torch

    from l2d.backbone.model import bfloat16_gain

    yield "cores", f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()}"
    yield "memory", f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB"
    there = next(folder for folder in (place.absolute(), *place.absolute().parents) if folder.exists())
    yield "disk free", f"{shutil.disk_usage(there).free / 2**30:.1f} GiB at {there}"
    yield "GPU", torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none that torch can use"
    yield "CPU dtype", f"bfloat16 runs {bfloat16_gain(PROBED_WIDTH):.1f}x as fast as float32 at width {PROBED_WIDTH}"


def health(run: Path, device: str) -> Iterator[Finding]:
    """What a run is made of, after every check of its bytes and fingerprints.

    Raises:
        ArtifactMissing, ArtifactCorrupt, ArtifactMismatch: what is wrong with it.
    """
    from l2d.backbone import probe_packing
    from l2d.recommender import Recommender

    opened = Recommender.load(run, device=device, verify=True)
    yield "checksums", f"{len(opened.manifest['files'])} files match, and their fingerprints agree"
    backbone = opened.backbone
    dtype = str(backbone.dtype).removeprefix("torch.")
    yield "backbone", f"{backbone.name}, {backbone.width} wide, {dtype} on {backbone.device}"
    yield "engine", opened.engine.reason
    yield "pack probe", probe_packing(backbone, longest=opened.prompts.max_tokens).reason
    if not opened.run.memory.exists():
        yield "memory", f"not built yet: run `l2d memory build {run}`"
        return
    opened.memory.verify()
    yield "memory", f"{len(opened.memory):,} entries match their checksums, through {opened.memory.metadata['through']}"
    fitted = opened.constants
    local, vote = f"local M = {fitted.local_neighbours}", f"vote M = {fitted.vote_neighbours}"
    yield "constants", f"{local}, {vote}, tau = {fitted.vote_temperature:.3g}"
