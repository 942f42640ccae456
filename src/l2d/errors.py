"""One hierarchy of errors. Every message carries what happened, what was got, what was expected and the cure.

The command line prints `str(error)` as one line and leaves with `error.exit_code`: 2 when the input has to change,
1 when the fault is ours.
"""

from __future__ import annotations

from pathlib import Path


class L2DError(Exception):
    """Base of every error that l2d raises on purpose.

    Args:
        what: what went wrong, in one clause.
        got: the offending value.
        expected: what would have been accepted.
        cure: what to do now, in the imperative.
        file: the file at fault, if it is one.
        line: the line in that file, counted from 1 with the header as line 1.
    """

    exit_code = 1

    def __init__(
        self,
        what: str,
        *,
        got: object = None,
        expected: object = None,
        cure: str | None = None,
        file: str | Path | None = None,
        line: int | None = None,
    ) -> None:
        self.what = what
        self.got = got
        self.expected = expected
        self.cure = cure
        self.file = None if file is None else str(file)
        self.line = line
        super().__init__(self._message())

    def _message(self) -> str:
        place = ""
        if self.file is not None:
            place = f"{self.file}:{self.line}: " if self.line is not None else f"{self.file}: "
        facts = [f"got {self.got}"] if self.got is not None else []
        if self.expected is not None:
            facts.append(f"expected {self.expected}")
        message = place + self.what + (f" ({', '.join(facts)})" if facts else "")
        if self.cure:
            message = f"{message.rstrip('.')}. {self.cure}"
        return " ".join(message.split())


class InputError(L2DError):
    """The input has to change: data, arguments, configuration or files."""

    exit_code = 2


class DataError(InputError):
    """A data file cannot be read as what it is said to be."""


class ConfigError(InputError):
    """An option has an impossible value, or two options contradict each other."""


class UnknownItem(InputError):
    """A history, exclusion or allow-list names an item that the catalogue does not have."""


class ArtifactExists(InputError):
    """The output is already there and nobody said to overwrite or resume it."""


class ArtifactMissing(InputError):
    """A file or a stage's output that this step needs is not there."""


class ArtifactMismatch(InputError):
    """Two artifacts were made from different backbones, prompts, catalogues or tokenizers."""


class ArtifactCorrupt(InputError):
    """A file's content is not what was written."""


class ArtifactBusy(InputError):
    """Another process writes to this run, or changed it while it was read: trying again later helps."""


class OutOfSpace(InputError):
    """The disk cannot hold what has to be written."""


class MissingDependency(InputError):
    """An optional package is needed; the cure is its install line."""


class EngineError(InputError):
    """An engine cannot be used here, or what it answers is not what the plain model thinks."""


class InternalError(L2DError):
    """An invariant of l2d does not hold: a bug of ours."""
