"""What Lance throws, as errors of ours; and a memory that changed while it was read."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from l2d.errors import ArtifactBusy, ArtifactCorrupt, ArtifactMissing, InputError, L2DError, OutOfSpace
from l2d.memory.ledger import REBUILD, Ledger

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says when a file cannot grow."""


@contextlib.contextmanager
def lance_errors(path: Path, *, writing: bool = False) -> Iterator[None]:
    """Turns whatever Lance throws into one of our errors.

    Broken files make it raise OSError, ValueError, RuntimeError or a Rust panic, which is a BaseException.
    """
    try:
        yield
    except (L2DError, KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
        raise
    except BaseException as error:
        code = re.search(r"os error (\d+)", str(error))
        if code and int(code[1]) in NO_ROOM:
            raise OutOfSpace(
                f"no space left while writing {path}",
                got=os.strerror(int(code[1])),
                cure="free some space or raise the limit, then run the same command again: it resumes",
            ) from error
        if writing:
            raise InputError(
                f"cannot write {path}", got=_first_line(error), cure="check the folder's permissions and disk"
            ) from error
        raise ArtifactCorrupt(f"{path} cannot be read", got=_first_line(error), cure=REBUILD) from error


@contextlib.contextmanager
def steady(path: Path, ledger: Ledger) -> Iterator[None]:
    """While a memory is read: says whether a fault is damage, or a writer that removed what the ledger listed.

    Raises:
        ArtifactBusy: the latter; opening the memory again helps.
    """
    try:
        yield
    except (ArtifactCorrupt, ArtifactMissing) as error:
        if changed(path, ledger):
            raise ArtifactBusy(f"the memory in {path} was changed while it was read", cure="open it again") from error
        raise


def changed(path: Path, ledger: Ledger) -> bool:
    """Whether the ledger on disk is another one by now."""
    try:
        return Ledger.load(path) != ledger
    except (ArtifactCorrupt, ArtifactMissing):
        return False


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
