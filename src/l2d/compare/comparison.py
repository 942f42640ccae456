"""What a comparison found: one row per contestant, and the JSON record that the report is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from l2d.compare.contestants import Kind
from l2d.compare.quality import Quality, Versus
from l2d.compare.timing import Speed


@dataclass(frozen=True)
class Row:
    """One contestant's figures.

    Args:
        kind: what kind of rival it is.
        quality: on the users that it was asked about.
        sample: on the users that language decoders were asked about; None where these are the same.
        versus: tests against the first row by metric; empty for the first itself.
        speed: latency and throughput; None if nothing was timed.
        memory_mib: what it holds while it answers.
    """

    kind: Kind
    quality: Quality
    sample: Quality | None
    versus: Mapping[str, Versus]
    speed: Speed | None
    memory_mib: float

    def to_json(self) -> dict[str, Any]:
        """The figures as JSON values. `k` is the length of the lists judged."""
        record: dict[str, Any] = {"kind": self.kind, **self.quality.to_json(), "k": self.quality.k}
        if self.sample is not None:
            record["sample"] = self.sample.to_json()
        record["versus"] = {metric: asdict(versus) for metric, versus in self.versus.items()}
        if self.speed is not None:
            record |= self.speed.to_json()
        return record | {"memory_mib": self.memory_mib}


@dataclass(frozen=True)
class Comparison:
    """Many decoders measured in one run: the same backbone, users and machine.

    Args:
        split: `valid` or `test`.
        users: examples that most rows were judged on.
        sample_users: those that language decoders were judged on.
        exclude_seen: whether the items of their histories were excluded.
        seed: of the samples and of every draw.
        list_length: k of timed requests.
        searched_length: k by which language rows were judged, with as many beams.
        rows: figures by contestant; all are tested against the first.
        curves: what `curves` measured; empty if nothing.
        run: what was compared, free for the caller to fill (name, backbone, machine, versions).
    """

    split: str
    users: int
    sample_users: int
    exclude_seen: bool
    seed: int
    list_length: int
    searched_length: int
    rows: Mapping[str, Row]
    curves: Mapping[str, Any] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)

    @property
    def against(self) -> str:
        """Name of the first row."""
        return next(iter(self.rows))

    def to_json(self) -> dict[str, Any]:
        """The record: {"split", "users", "rows": {NAME: {...}}} and what explains it."""
        return {
            "split": self.split,
            "users": self.users,
            "sample_users": self.sample_users,
            "exclude_seen": self.exclude_seen,
            "seed": self.seed,
            "against": self.against,
            "list_length": self.list_length,
            "searched_length": self.searched_length,
            "run": dict(self.run),
            "rows": {name: row.to_json() for name, row in self.rows.items()},
            "curves": dict(self.curves),
        }
