"""SQLite as the journal uses it: how a file is opened, and what goes wrong as errors of ours."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from l2d.artifacts import LITTLE, free_space
from l2d.errors import ArtifactBusy, ArtifactCorrupt, ArtifactMissing, ConfigError, InputError, OutOfSpace

WAIT = 10.0
"""Seconds that another connection's lock is waited for."""

RESTORE = (
    "restore the journal from a copy; without it the run's live interactions are lost: "
    "delete it to go on, and build the memory anew if it has taken any in"
)

BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)
UNWRITABLE = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH)


@contextlib.contextmanager
def sqlite_errors(path: Path) -> Iterator[None]:
    """Turns what SQLite throws into one of our errors.

    Raises:
        ArtifactBusy: another connection kept its lock too long.
        OutOfSpace: the disk is full.
        ArtifactCorrupt: the file is damaged.
        ConfigError: it was closed.
        InputError: it cannot be read or written, for another reason.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise _translated(path, error) from error
    except OSError as error:
        cure = "check the folder's permissions and disk"
        raise InputError(f"cannot open or write {path}", got=os.strerror(error.errno or 0), cure=cure) from error
    except UnicodeDecodeError as error:
        raise ArtifactCorrupt("the journal holds text that is none", file=path, cure=RESTORE) from error


def _translated(path: Path, error: sqlite3.Error) -> InputError:
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return ConfigError(f"{path} is not open", got=error, cure="open the run again")
    primary = code & 0xFF
    fact = f"{error} ({getattr(error, 'sqlite_errorname', type(error).__name__)})"
    if primary in BUSY:
        return ArtifactBusy(f"{path} is in use", got=fact, cure="try again")
    full = primary == sqlite3.SQLITE_FULL or (primary == sqlite3.SQLITE_IOERR and free_space(path) < LITTLE)
    if full:
        return OutOfSpace(
            f"no space left while writing {path}", got=fact, cure="free some space; what was acknowledged is there"
        )
    if primary in UNWRITABLE or primary == sqlite3.SQLITE_IOERR:
        return InputError(f"cannot open or write {path}", got=fact, cure="check the folder's permissions and disk")
    return ArtifactCorrupt("the journal is damaged", got=fact, file=path, cure=RESTORE)


def connected(path: Path, *, writer: bool) -> sqlite3.Connection:
    """Opens an existing journal and compares its structure.

    A reader works beside a writer, and also where nothing may be written: there SQLite can keep no index of its
    write-ahead log, so the file is read as one that nobody changes, unless it has such a log.

    Raises:
        ArtifactMissing: no such file.
        ArtifactCorrupt: it is damaged.
        ArtifactBusy, OutOfSpace, InputError: see `sqlite_errors`.
    """
    if not path.is_file():
        raise ArtifactMissing(f"{path} is not there", cure="restore it from a copy")
    with sqlite_errors(path):
        if writer:
            return _checked(path, "rw")
        try:
            return _checked(path, "ro")
        except sqlite3.OperationalError as error:
            unwritable = (getattr(error, "sqlite_errorcode", 0) & 0xFF) in UNWRITABLE
            if not unwritable or (os.access(path.parent, os.W_OK) and not _read_only(path)):
                raise
            if _log_bytes(path):
                raise InputError(
                    f"{path} has writes that are not merged into it, and its folder cannot be written",
                    cure="open the run once where it can be written, then copy it again",
                ) from error
            return _checked(path, "ro&immutable=1")


def _checked(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"file:{quote(str(path.absolute()))}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, timeout=WAIT, isolation_level=None, check_same_thread=False)
    try:
        # A whole check of the index by the one who trusts it: duplicates are found by it.
        check = "integrity_check" if mode == "rw" else "quick_check"
        found = connection.execute(f"PRAGMA {check}(1)").fetchone()[0]
        if found != "ok":
            raise ArtifactCorrupt("the journal is damaged", got=found, file=path, cure=RESTORE)
        if mode == "rw":
            settled(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def settled(connection: sqlite3.Connection) -> None:
    """What a writer's connection keeps to: a commit is on the disk when it returns, deleted bytes are overwritten."""
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON", "temp_store=MEMORY"):
        connection.execute(f"PRAGMA {pragma}")


def _log_bytes(path: Path) -> int:
    log = path.with_name(path.name + "-wal")
    return log.stat().st_size if log.is_file() else 0


def _read_only(path: Path) -> bool:
    return bool(os.statvfs(path.parent).f_flag & os.ST_RDONLY)
