"""A run directory: the contract between stages. What is in it, its manifest, and the checks when it is opened."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from l2d.artifacts import (
    WriterLock,
    folder_checksums,
    fsync,
    read_json,
    refuse_existing,
    sha256_file,
    sha256_text,
    verify_checksums,
    write_json,
)
from l2d.errors import ArtifactCorrupt, ArtifactExists, ArtifactMismatch, ArtifactMissing

FORMAT = 1
MANIFEST = "manifest.json"
PACKAGES = ("torch", "transformers", "peft", "tokenizers", "pylance", "polars", "numpy")
FINAL = ("backbone", "data", "prompt.json", "metrics.jsonl")
"""Written once, before the manifest says `ready`; their bytes are in it. The memory keeps a ledger of its own."""


ADDED = ("items", "metadata")
"""Files of items that came later, `PART-DIGEST.parquet`: the manifest names the one of each that counts."""


@dataclass(frozen=True)
class Run:
    """Where each part of a run lies."""

    path: Path

    @property
    def manifest_file(self) -> Path:
        """What the run was made from, and the checksums of its files."""
        return self.path / MANIFEST

    @property
    def backbone(self) -> Path:
        """Full weights and tokenizer, or `base.json` (hub name and revision) and `adapter/`."""
        return self.path / "backbone"

    @property
    def data(self) -> Path:
        """The prepared data."""
        return self.path / "data"

    @property
    def prompt(self) -> Path:
        """The prompt's segments as token ids."""
        return self.path / "prompt.json"

    @property
    def memory(self) -> Path:
        """The Lance dataset."""
        return self.path / "memory.lance"

    @property
    def live(self) -> Path:
        """The journal: interactions that came after tuning, and entries that are not in the memory yet."""
        return self.path / "live.sqlite"

    @property
    def writer(self) -> Path:
        """The lock of the one process that may write."""
        return self.path / ".writer"

    @property
    def constants(self) -> Path:
        """Fitted constants of the decoders."""
        return self.path / "decoder.json"

    @property
    def calibration(self) -> Path:
        """What auto and recall keep beside their constants: scatter, vectors of titles, thoughts after items."""
        return self.path / "calibration.npz"

    @property
    def peers(self) -> Path:
        """Trained opponents, a folder each."""
        return self.path / "peers"

    @property
    def engines(self) -> Path:
        """The backbone as other engines compute it; whatever lies here can be made again."""
        return self.path / "engines"

    @property
    def metrics(self) -> Path:
        """Tuning's log."""
        return self.path / "metrics.jsonl"

    def waiting(self, name: str) -> Path:
        """Where a part is made that is to replace the one of that name."""
        return self.path / f".{name}.next"

    def part(self, name: str, manifest: dict[str, Any]) -> Path:
        """Where the part of that name lies that the manifest counts: still apart, while it is moved into its place."""
        waiting = self.waiting(name)
        return waiting if name in manifest.get("moving", ()) and waiting.exists() else self.path / name

    def replace_parts(self, manifest: dict[str, Any], names: Sequence[str], **changed: Any) -> dict[str, Any]:
        """Goes over to parts that lie complete where they wait, all at once; returns the new manifest.

        The manifest goes over first, and names them; then they are moved. Whoever opens the run meanwhile finds the old
        parts or the new ones. After a kill, `settle` ends it.

        Args:
            manifest: the present one.
            names: parts that wait.
            changed: other fields that go over with them.
        """
        files = {name: digest for name, digest in manifest["files"].items() if name.partition("/")[0] not in names}
        for name in names:
            if name in FINAL:
                found = folder_checksums(self.waiting(name))
                files |= {f"{name}/{file}": digest for file, digest in found.items()}
        return self.settle(self.record(manifest, files=files, moving=list(names), **changed))

    def settle(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Moves parts into place that the manifest went over to, and removes those that it never did; for the writer.

        Returns:
            The manifest, which names nothing that has to be moved any more.
        """
        moving = manifest.get("moving", ())
        for name in moving:
            waiting, place = self.waiting(name), self.path / name
            if waiting.exists():
                if place.is_dir():
                    shutil.rmtree(place)
                os.replace(waiting, place)
                fsync(self.path)
        if manifest.get("constants") and manifest.get("calibration") is None:
            self.calibration.unlink(missing_ok=True)
        named = {manifest[part]["file"] for part in ADDED if manifest.get(part)}
        for file in (file for part in ADDED for file in self.path.glob(f"{part}-*.parquet")):
            if file.name not in named:
                file.unlink()
        for stray in self.path.glob(".*.next"):
            shutil.rmtree(stray) if stray.is_dir() else stray.unlink()
        return self.record({key: value for key, value in manifest.items() if key != "moving"}) if moving else manifest

    def sweep(self) -> None:
        """Removes what was left half-written or half-removed by processes that died; for the writer."""
        for stray in [*self.path.rglob(".*.part"), *self.path.glob(".*.removed")]:
            if stray.suffix == ".part" and _being_written(stray):
                continue
            if stray.is_dir():
                shutil.rmtree(stray, ignore_errors=True)
            else:
                stray.unlink(missing_ok=True)

    def claim(self, *, overwrite: bool = False) -> None:
        """Makes the folder. An earlier run in it is deleted if `overwrite`; anything else never is.

        Raises:
            ArtifactExists: something is there.
            ArtifactBusy: a process writes to the earlier run.
        """
        refuse_existing(self.path, overwrite=overwrite)
        if self.path.is_dir() and any(self.path.iterdir()):
            if not self.manifest_file.is_file():
                raise ArtifactExists(
                    f"{self.path} is not a run",
                    got="a folder without manifest.json",
                    cure="choose another --out; l2d does not delete it",
                )
            with WriterLock(self.writer):
                shutil.rmtree(self.path)
        self.path.mkdir(parents=True, exist_ok=True)

    def write_manifest(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Writes the manifest with format, versions and a checksum over itself; returns what it holds."""
        record = {"format": FORMAT, **fields, "versions": versions()}
        record["checksum"] = _self_checksum(record)
        write_json(self.manifest_file, record)
        return record

    def finish(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Writes the manifest of a run that is ready, with the checksums of its final files."""
        return self.write_manifest({**fields, "state": "ready", "files": self.checksums()})

    def record(self, manifest: dict[str, Any], **changed: Any) -> dict[str, Any]:
        """Writes the manifest anew with some fields changed."""
        fresh = ("format", "versions", "checksum")
        return self.write_manifest({key: value for key, value in manifest.items() if key not in fresh} | changed)

    def checksums(self) -> dict[str, str]:
        """Digests of all final files."""
        found: dict[str, str] = {}
        for name in FINAL:
            place = self.path / name
            if place.is_dir():
                found |= folder_checksums(place, relative_to=self.path)
            elif place.is_file():
                found[name] = sha256_file(place)
        return found

    def read_manifest(self, *, state: str = "ready") -> dict[str, Any]:
        """Reads the manifest.

        Raises:
            ArtifactMissing: no run here, or one that is not as far.
            ArtifactCorrupt: it was changed.
            ArtifactMismatch: it was written by a newer l2d.
        """
        if not self.manifest_file.is_file():
            raise ArtifactMissing(f"{self.path} is not a run", cure="make one with `l2d tune` or `l2d adopt`")
        record = read_json(self.manifest_file)
        if not isinstance(record, dict) or record.get("checksum") != _self_checksum(record):
            raise ArtifactCorrupt(
                f"{self.manifest_file} was changed since it was written", cure="restore it from a copy"
            )
        if record["format"] != FORMAT:
            raise ArtifactMismatch(
                "the run has another format", got=record["format"], expected=FORMAT, cure="use the l2d that made it"
            )
        if record["state"] != state:
            cure = (
                "finish it with `l2d tune ... --resume`"
                if record["state"] == "tuning"
                else "it is complete; choose another --out"
            )
            raise ArtifactMissing(f"the run {self.path} is not {state}", got=record["state"], cure=cure)
        return record

    def verify(self, manifest: dict[str, Any]) -> None:
        """Compares every final file with its digest.

        Raises:
            ArtifactCorrupt, ArtifactMissing: one changed or is gone.
        """
        parts: dict[str, dict[str, str]] = {}
        for file, digest in manifest["files"].items():
            name, _, rest = file.partition("/")
            place = self.part(name, manifest).name
            parts.setdefault(name, {})[f"{place}/{rest}" if rest else place] = digest
        for files in parts.values():
            verify_checksums(self.path, files)


def _being_written(part: Path) -> bool:
    """Whether a half-written file, `.NAME.PID.part`, is another living process's."""
    owner = part.name.split(".")[-2]
    if not owner.isdecimal() or int(owner) in (0, os.getpid()):
        return False
    try:
        os.kill(int(owner), 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def _self_checksum(record: dict[str, Any]) -> str:
    rest = {key: value for key, value in record.items() if key != "checksum"}
    return sha256_text(json.dumps(rest, sort_keys=True, ensure_ascii=False))


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a run's numbers."""
    found = {"python": platform.python_version()}
    for package in ("l2d", *PACKAGES):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def check_same(what: str, there: Any, wanted: Any, *, cure: str) -> None:
    """Raises `ArtifactMismatch`, naming both sides, unless they are equal."""
    if there != wanted:
        raise ArtifactMismatch(
            f"the run was made with another {what}", got=_short(there), expected=_short(wanted), cure=cure
        )


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return text if len(text) <= 60 else text[:57] + "..."
