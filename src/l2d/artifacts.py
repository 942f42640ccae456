"""Files that are either whole or not there: atomic writes, checksums, the refusal to overwrite.

Everything l2d writes goes through here, except the Lance dataset, which has commits of its own.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import weakref
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2d.errors import ArtifactBusy, ArtifactCorrupt, ArtifactExists, ArtifactMissing, InputError, OutOfSpace

CHUNK = 1 << 20


def fsync(path: Path) -> None:
    """Flushes a file or a folder's entries to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


FULL = ("No space left on device", "os error 28", "Disk quota exceeded")
"""What libraries that write for us say of a full disk, where they lose the error number."""

TORCH_FILE = "inline_container"
"""torch.save names only its own source file when a write fails, and so it does when it reads a damaged one."""

LITTLE = 64 << 20
"""Bytes of free space below which such a failure is put down to the disk."""


def is_full_disk(error: BaseException) -> bool:
    """Whether an error, or what it was raised from, is a full disk or quota."""
    cause = error.__cause__ or error.__context__
    numbered = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return numbered or any(words in str(error) for words in FULL) or (cause is not None and is_full_disk(cause))


def free_space(path: Path) -> int:
    """Bytes free where a path lies or would lie."""
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    return shutil.disk_usage(there).free


@contextlib.contextmanager
def space_errors(path: Path, left: str = "nothing half-written was left behind") -> Iterator[None]:
    """Turns a full disk into `OutOfSpace`, which names the path, what is left there and the cure."""
    try:
        yield
    except Exception as error:
        if is_full_disk(error) or (TORCH_FILE in str(error) and free_space(path) < LITTLE):
            cure = f"free some space or choose another --out; {left}"
            raise OutOfSpace(f"no space left while writing {path}", cure=cure) from error
        raise


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yields a temporary sibling of `path`; on success it is fsynced and renamed over `path`, else removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with space_errors(path):
            yield temporary
            fsync(temporary)
            os.replace(temporary, path)
            fsync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yields a temporary sibling folder that replaces `path` on success and vanishes on failure.

    Raises:
        ArtifactExists: `path` is a non-empty folder and `overwrite` is false.
    """
    refuse_existing(path, overwrite=overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        with space_errors(path):
            yield temporary
            for file in sorted(temporary.rglob("*")):
                fsync(file)
            if path.exists():
                shutil.rmtree(path)
            os.replace(temporary, path)
            fsync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def refuse_existing(path: Path, *, overwrite: bool = False) -> None:
    """Raises `ArtifactExists` when `path` holds something and overwriting was not asked for."""
    occupied = path.is_file() or (path.is_dir() and any(path.iterdir()))
    if occupied and not overwrite:
        raise ArtifactExists(f"{path} already exists", cure="pass --overwrite, or choose another --out")


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text file atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON atomically; keys keep their order."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        ArtifactMissing: there is no such file.
        ArtifactCorrupt: it is not JSON.
    """
    if not path.is_file():
        raise ArtifactMissing(f"{path} is not there", cure="check the path, or run the stage that writes it")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ArtifactCorrupt(
            f"{path} is not valid JSON", got=error, cure="restore the file or rebuild the stage that wrote it"
        ) from error


def write_arrays(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Writes named arrays as one compressed .npz file, atomically."""
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # the stub takes ** for allow_pickle


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Reads what `write_arrays` wrote; never unpickles.

    Raises:
        ArtifactMissing: there is no such file.
        ArtifactCorrupt: it is not such a file, or its bytes changed.
    """
    if not path.is_file():
        raise ArtifactMissing(f"{path} is not there", cure="check the path, or run the stage that writes it")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    # A flipped byte in a zip header shows as any of these, RuntimeError ("is encrypted") included.
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError, AttributeError) as error:
        raise ArtifactCorrupt(
            f"{path} does not hold the arrays that were written", got=error, cure="rebuild the stage that wrote it"
        ) from error


def sha256_file(path: Path) -> str:
    """Hex digest of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()


def sha256_text(*parts: str | bytes) -> str:
    """Hex digest of the parts, each preceded by its length so that ("ab", "c") and ("a", "bc") differ."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.hexdigest()


def folder_checksums(folder: Path, *, relative_to: Path | None = None) -> dict[str, str]:
    """Digest of every file below a folder, by its POSIX path relative to `relative_to` (default: the folder)."""
    base = relative_to or folder
    return {
        file.relative_to(base).as_posix(): sha256_file(file) for file in sorted(folder.rglob("*")) if file.is_file()
    }


def verify_checksums(folder: Path, checksums: dict[str, str]) -> None:
    """Compares files with their recorded digests.

    Raises:
        ArtifactMissing: a recorded file is gone.
        ArtifactCorrupt: a file's bytes changed.
    """
    for name, digest in checksums.items():
        file = folder / name
        if not file.is_file():
            raise ArtifactMissing(f"{file} is recorded but not there", cure="restore it or rebuild the run")
        found = sha256_file(file)
        if found != digest:
            raise ArtifactCorrupt(
                f"{file} does not match its checksum",
                got=f"sha256 {found[:12]}",
                expected=f"sha256 {digest[:12]}",
                cure="restore the file from a copy, or rebuild the stage that wrote it",
            )


class WriterLock:
    """The right to write to a run, which one process has at a time; the system takes it back when that process ends.

    A forked child does not have it, nor does a program that is started: neither keeps it from being released.

    Args:
        path: the lock file; it stays when the lock is released, and holds the writer's process id until then.

    Raises:
        ArtifactBusy: somebody else writes; names the process.
        InputError: the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise InputError(
                f"cannot write {path}",
                got=os.strerror(error.errno or 0),
                cure="check the folder's permissions and disk",
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            who = "this very process" if holder == str(os.getpid()) else f"process {holder}"
            cure = f"use that one, or end it first (`kill {holder}`); reading is possible meanwhile"
            raise ArtifactBusy(f"{path.parent} is being written to by {who}", cure=cure) from error
        self._descriptor: int | None = descriptor
        with contextlib.suppress(OSError):  # a full disk costs the name of the holder, not the lock
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        _held.add(self)

    @property
    def held(self) -> bool:
        """Whether this process may write."""
        return self._descriptor is not None

    @property
    def current(self) -> bool:
        """Whether the path still leads to the file that is locked; not where its folder was renamed or replaced."""
        if self._descriptor is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.stat(self.path))
        except OSError:
            return False

    def release(self) -> None:
        """Gives the right back; a second time nothing happens."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, 0)
            os.close(descriptor)

    def _forked(self) -> None:
        """In a child: closes the copy, which would keep the lock alive after the parent; the parent's lock stays."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __enter__(self) -> WriterLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


_held: weakref.WeakSet[WriterLock] = weakref.WeakSet()


def _after_fork() -> None:
    for lock in list(_held):
        lock._forked()


os.register_at_fork(after_in_child=_after_fork)
