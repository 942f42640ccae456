"""Examples -> memory: thoughts of the histories, labelled with the item that came next, written in planned shards."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from l2d.catalog import Catalog
from l2d.errors import ArtifactCorrupt, ArtifactMismatch, ConfigError
from l2d.interactions import Examples
from l2d.memory.ledger import REBUILD, DType, remove, unclaimed
from l2d.memory.store import Memory
from l2d.packing import lexicographic

if TYPE_CHECKING:
    from l2d.thoughts import Thinker

Progress = Callable[[int, int], None]

SHARD = 2048
"""Samples in a commit: the most that a kill costs. Prefixes are shared within a shard, so tiny ones cost time."""


class PromptSource(Protocol):
    """What a build needs of `l2d.prompts.Prompts`."""

    @property
    def fingerprint(self) -> str:
        """Digest of all that decides a prompt's ids."""
        ...

    def prompt(self, history: NDArray[np.int32]) -> NDArray[np.int32]:
        """Token ids of a history. Shape: (tokens,)."""
        ...


@dataclass(frozen=True)
class Plan:
    """Which samples are thought together. It depends on the sample list alone, never on what was done already.

    Args:
        prompts: token ids of each sample's prompt.
        shards: places of the examples of each commit; in lexicographic order of their prompts, so that prompts with a
            common prefix meet in one shard and the engine can pack them.
        digest: of the prompts, the labels and the cutting.
    """

    prompts: list[NDArray[np.int32]]
    shards: list[NDArray[np.int64]]
    digest: str


def plan(examples: Examples, prompts: PromptSource, catalog: Catalog, shard_size: int = SHARD) -> Plan:
    """Plans a build. Only histories become prompts, never an answer.

    Raises:
        ConfigError: a shard size below 1.
    """
    if shard_size < 1:
        raise ConfigError("the shard size is too small", got=shard_size, expected="at least 1")
    sequences = [prompts.prompt(history) for history in examples.histories()]
    order = np.array(lexicographic(sequences), dtype=np.int64)
    digest = hashlib.sha256(f"{shard_size} {len(examples)} {catalog.fingerprint}".encode())
    for sequence in sequences:
        digest.update(len(sequence).to_bytes(8, "little"))
        digest.update(np.ascontiguousarray(sequence, dtype="<i4").tobytes())
    for column in (examples.target, examples.user, examples.timestamp):
        digest.update(np.ascontiguousarray(column, dtype="<i8").tobytes())
    digest.update("\0".join(examples.interactions.user_ids).encode())
    if not np.array_equal(examples.sample, np.arange(len(examples))):
        digest.update(np.ascontiguousarray(examples.sample, dtype="<i8").tobytes())
    shards = [order[start : start + shard_size] for start in range(0, len(order), shard_size)]
    return Plan(sequences, shards, digest.hexdigest())


def build(
    path: Path,
    thinker: Thinker,
    prompts: PromptSource,
    examples: Examples,
    catalog: Catalog,
    *,
    dtype: DType = "float16",
    shard_size: int = SHARD,
    metadata: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Memory:
    """Builds a memory, or goes on where an earlier build was stopped.

    Each shard is one commit, thought from the same prompts in the same order whether or not the build was ever
    interrupted, so a resumed memory equals an uninterrupted one bit by bit. A finished memory of the same plan is
    returned as it is, also where it has grown or forgotten since.

    Args:
        path: the memory's folder.
        thinker: the engine.
        prompts: histories -> token ids.
        examples: the training samples, each with its number in the memory.
        catalog: the items.
        dtype: type of the stored thoughts.
        shard_size: samples in a commit.
        metadata: JSON values that identify what the memory is made with (backbone, through, ...); the fingerprints of
            prompts and catalogue are added.
        overwrite: whether a memory that is there is deleted first; live entries have to be thought again then, see
            `LiveMemory.missing`.
        progress: called with samples (done, total).

    Raises:
        ArtifactMismatch: a memory of other metadata or other samples is there; names both sides.
        ArtifactCorrupt, ArtifactMissing: what is there was damaged.
        DataError: a thought is not finite in `dtype`; names the sample.
        OutOfSpace: the disk is full; the shards written so far stay.
    """
    planned = plan(examples, prompts, catalog, shard_size)
    described = {"catalog": catalog.fingerprint, "prompts": prompts.fingerprint, **(metadata or {})}
    if overwrite:
        remove(path)
    if unclaimed(path):
        memory = Memory.create(path, width=thinker.width, dtype=dtype, metadata=described, plan=planned.digest)
    else:
        memory = _resume(path, described, planned, thinker.width, dtype)
    if memory.ledger.finished and memory.ledger.lived:
        return memory
    for shard in planned.shards[_shards_done(memory, planned, examples.sample) :]:
        _append_shard(memory, thinker, planned.prompts, shard, examples, catalog, progress)
    if not memory.ledger.finished:
        memory.finish()
    return memory


def _resume(path: Path, described: Mapping[str, Any], planned: Plan, width: int, dtype: DType) -> Memory:
    memory = Memory.open(path, expected=described, unfinished=True)
    ledger = memory.ledger
    sides = (
        ("type", f"{ledger.dtype}, width {ledger.width}", f"{dtype}, width {width}"),
        ("sample list", f"plan {ledger.plan[:12]}", f"plan {planned.digest[:12]}"),
    )
    for what, there, wanted in sides[: 1 if ledger.finished and ledger.lived else 2]:
        if there != wanted:
            raise ArtifactMismatch(
                f"the memory in {path} was begun with another {what}",
                got=f"memory {there}",
                expected=wanted,
                cure="pass --overwrite to build it anew",
            )
    return memory


def _shards_done(memory: Memory, planned: Plan, numbers: NDArray[np.int64]) -> int:
    """How many shards are there, after comparing the samples that the memory holds with the plan."""
    held = memory.samples()
    done, size = 0, 0
    while done < len(planned.shards) and size < len(held):
        size += len(planned.shards[done])
        done += 1
    expected = np.concatenate([np.empty(0, dtype=np.int64), *planned.shards[:done]])
    if not np.array_equal(held, numbers[expected]):
        raise ArtifactCorrupt("the memory holds other samples than its plan", file=memory.path, cure=REBUILD)
    return done


def _append_shard(
    memory: Memory,
    thinker: Thinker,
    prompts: Sequence[NDArray[np.int32]],
    shard: NDArray[np.int64],
    examples: Examples,
    catalog: Catalog,
    progress: Progress | None,
) -> None:
    before, total = len(memory), len(examples)

    def report(done: int, _: int) -> None:
        if progress is not None:
            progress(before + done, total)

    thoughts = thinker.think([prompts[sample] for sample in shard], report)
    users = examples.interactions.user_ids
    part = examples.take(shard)
    memory.append(
        thoughts,
        [catalog.item_ids[row] for row in part.target],
        [users[user] for user in part.user],
        part.timestamp,
        part.sample,
    )
    report(len(shard), len(shard))
