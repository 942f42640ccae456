"""Forgetting in all of a run: memory, journal, prepared data, calibration, trained opponents.

What is to be forgotten is first written into the journal as a wish, and erased from it last. In between every step may
be taken again, so whoever writes next ends what a process began that died. The order matters: what is forgotten is
found through the data and the journal, so the memory goes first, the journal's rows next, the data last.

What the tuned weights learned stays, and so do constants that were fitted on many users at once. Nothing short of
tuning anew, on data without what was forgotten, takes it out of the weights.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from l2d.artifacts import atomic_folder, sha256_file, write_arrays
from l2d.errors import ArtifactMissing, ConfigError
from l2d.interactions import UNKNOWN_TIME, Dataset, SplitName
from l2d.memory import LiveMemory
from l2d.memory.columns import narrow
from l2d.memory.journal import ERASE, NOTHING, Journal, Log
from l2d.recommender.calibrating import measure_again, open_title_map, replace_parts
from l2d.recommender.histories import Histories
from l2d.recommender.making import StageProgress, silent
from l2d.recommender.remembering import THROUGH
from l2d.run import Run

if TYPE_CHECKING:
    from l2d.recommender.opening import OpenRun

UPTO = "upto"
"""Of a wish: the last interaction that had come in. What comes after it is no part of what is to be forgotten."""


@dataclass(frozen=True)
class Forgotten:
    """What `forget` did.

    Args:
        interactions: how many were forgotten, in the prepared data and live; in windows that repeat their histories,
            each as often as it stood there.
        entries: memory entries that are gone.
        version: of the memory that is left.
    """

    interactions: int
    entries: int
    version: str


def forget(
    run: OpenRun,
    live: LiveMemory | None,
    *,
    user: str | int | None = None,
    item: str | int | None = None,
    before: int | None = None,
    progress: StageProgress = silent,
) -> Forgotten:
    """Forgets a user, an item or the past, in every file of the run; exactly one of the three.

    Histories that lose something by it are thought again, so that the memory is the one that would be built of what is
    left. A user or an item that nobody knows leaves nothing to forget. What the tuned weights learned stays.

    Args:
        run: opened by its only writer.
        live: its memory, opened to be written to; None where it has none.
        user: the id.
        item: the id; the item itself stays in the catalogue.
        before: unix seconds; what is older is forgotten. See `Dataset.forgetting` for unknown times.
        progress: called with (stage, done, total).

    Raises:
        ConfigError: not exactly one of the three, or `before` where no time is known, live or in the data.
        UnknownItem: no such item.
        DataError: a split would have no example left; nothing was changed.
        ArtifactMissing: the memory's build has not come to its end; nothing was changed.
        ArtifactBusy: all is forgotten, but a reader kept the journal's file from being erased; the next writer does it.
        OutOfSpace: the disk is full; the next writer goes on with it.
    """
    if live is None and (run.run.memory.exists() or run.run.live.exists()):
        cure = f"run `l2d memory build {run.path}` first: it resumes"
        raise ArtifactMissing(f"the memory of {run.path} is not finished", cure=cure)
    given = {"user": user, "item": item, "before": before}
    asked = {name: value if name == "before" else str(value) for name, value in given.items() if value is not None}
    if len(asked) != 1:
        raise ConfigError("what is to be forgotten?", expected="a user, an item or a time, and one of them alone")
    finish(run, live, progress=progress)
    if item is not None:
        run.catalog.row(item)
    found = _Extent.of(run, live, asked)
    if run.run.calibration.is_file():
        open_title_map(run)  # damage is to be found before anything is changed
    if not found.interactions:
        if live is not None and live.journal is not None:
            live.journal.scrub()  # it may have been deleted in another way
        return Forgotten(0, 0, live.version if live is not None else "")
    if live is None or live.journal is None:
        _fulfil(run, live, found, progress)
        return Forgotten(found.interactions, 0, "")
    before_it = len(live.memory) + live.pending
    number = live.journal.wish(asked | {UPTO: live.journal.last})
    _fulfil(run, live, found, progress)
    _erase(live, number)
    return Forgotten(found.interactions, before_it - len(live.memory) - live.pending, live.version)


def finish(run: OpenRun, live: LiveMemory | None, *, progress: StageProgress = silent) -> None:
    """Ends what a process began that died while it forgot; for the run's only writer, before anything else.

    Raises:
        As `forget`.
    """
    manifest = run.run.settle(run.run.read_manifest())
    if manifest["data"] != run.manifest["data"]:
        run.read(replace(Dataset.load(run.run.data), catalog=run.catalog), run.prompts)
    run.manifest = manifest
    if live is None or live.journal is None:
        return
    for wish in live.journal.wishes():
        if wish.content != ERASE:
            _fulfil(run, live, _Extent.of(run, live, wish.content), progress)
        _erase(live, wish.number)


def unfinished(place: Run) -> bool:
    """Whether a process died, or failed, before all that it was to forget was gone.

    Raises:
        ArtifactCorrupt: the journal is damaged.
    """
    if not place.live.exists():
        return False
    with Journal.open(place.live) as journal:
        return any(wish.content != ERASE for wish in journal.wishes())


def _erase(live: LiveMemory, number: int) -> None:
    """Takes a fulfilled wish out of the journal, and every byte of what was deleted from it."""
    assert live.journal is not None
    live.journal.wish(ERASE)
    live.journal.fulfilled(number)
    live.journal.erase()


@dataclass(frozen=True)
class _Extent:
    """What a wish means for a run as it is.

    Args:
        before: the prepared data as they are, with the catalogue that they were prepared with.
        left: what is left of them.
        shortened: users of the data that lose something; indices into their ids.
        log: the live interactions that are left.
        gone: numbers of those that are not. Shape: (interactions,).
        interactions: how many are forgotten.
    """

    before: Dataset
    left: Dataset
    shortened: NDArray[np.int32]
    log: Log
    gone: NDArray[np.int64]
    interactions: int

    @classmethod
    def of(cls, run: OpenRun, live: LiveMemory | None, wish: Mapping[str, Any]) -> _Extent:
        asked = {name: value for name, value in wish.items() if name != UPTO}
        data = replace(run.dataset, catalog=run.tuned_catalog)
        later = "item" in asked and run.catalog.row(asked["item"]) >= len(run.tuned_catalog)
        log = NOTHING if live is None else live.log()
        timeless = "before" in asked and bool((data.interactions.timestamp == UNKNOWN_TIME).all())
        live_alone = timeless and (len(log) > 0 or UPTO in wish)  # live interactions have times
        left = data if later or live_alone else data.forgetting(**asked)
        users = data.interactions.user[data.forgotten(**asked)] if left is not data else np.empty(0, np.int32)
        gone = NOTHING.seq if live is None or live.journal is None else live.journal.find(**asked).seq
        gone = gone[gone <= wish.get(UPTO, np.iinfo(np.int64).max)]
        rest = log.take(np.flatnonzero(~np.isin(log.seq, gone)))
        return cls(data, left, np.unique(users), rest, gone, len(users) + len(gone))


def _fulfil(run: OpenRun, live: LiveMemory | None, found: _Extent, progress: StageProgress) -> None:
    """Every step of a wish, in the order that the module names; what is done already is done again, or nothing."""
    run.read(run.dataset, run.prompts)
    if live is not None and live.journal is not None:
        _forget_entries(run, live, found, progress)
        live.journal.forget(found.gone)
    if found.left is not found.before:
        if run.run.peers.is_dir():  # in one step: none of them may be half there
            os.replace(run.run.peers, run.path / f".peers.{os.getpid()}.removed")
        for aside in run.path.glob(".peers.*.removed"):
            shutil.rmtree(aside)
        _replace_data(run, live, found.left, progress)
    run.run.sweep()
    run.__dict__.pop("answering", None)  # it keeps keys and values of former requests
    run.read(replace(found.left, catalog=run.catalog), run.prompts)


@dataclass(frozen=True)
class _Again:
    """An entry whose history lost something."""

    history: NDArray[np.int32]
    item_id: str
    user_id: str
    timestamp: int
    sample: int


def _forget_entries(run: OpenRun, live: LiveMemory, found: _Extent, progress: StageProgress) -> None:
    """Removes entries that are forgotten or whose history lost something, and thinks the latter again."""
    assert live.journal is not None
    live.move()
    memory, journal = live.memory, live.journal
    gone, again = _of_data(run, found, THROUGH[memory.metadata["through"]])
    lost, more = _of_log(run, live, found)
    waiting = set(journal.pending(memory.ledger.moved).samples.tolist())
    later = [one for one in more if one.sample in waiting]
    again += [one for one in more if one.sample <= journal.base + memory.ledger.moved]
    samples = [*gone.tolist(), *(journal.base + seq for seq in (*found.gone.tolist(), *lost))]
    doomed = np.array(sorted({*samples, *(one.sample for one in again)}), dtype=np.int64)
    if np.isin(doomed, memory.samples()).any():
        memory.remove(doomed)
    journal.without_entries(lost)
    thoughts = run.thinker.think(
        [run.prompts.prompt(one.history) for one in (*again, *later)], partial(progress, "thinking again")
    )
    if again:
        memory.append(
            thoughts[: len(again)],
            [one.item_id for one in again],
            [one.user_id for one in again],
            np.array([one.timestamp for one in again], dtype=np.int64),
            np.array([one.sample for one in again], dtype=np.int64),
            moved=memory.ledger.moved,
        )
        memory.compact(keep=1)
    if later:
        seqs = np.array([one.sample for one in later], dtype=np.int64) - journal.base
        journal.rethought(seqs, narrow(thoughts[len(again) :], journal.dtype, seqs))


def _of_data(run: OpenRun, found: _Extent, names: Sequence[SplitName]) -> tuple[NDArray[np.int64], list[_Again]]:
    """Samples of examples that are gone, and the examples whose history is shorter now."""
    gone, again = [np.empty(0, np.int64)], []
    users, items = found.left.interactions.user_ids, run.catalog.item_ids
    for name in names if found.left is not found.before else ():
        old, new = found.before.splits[name], found.left.splits[name]
        place = new.places(old.sample)
        gone.append(old.sample[place < 0])
        shorter = place[(place >= 0) & (new.history_length[place] < old.history_length)]
        for at in shorter.tolist():
            item, user = items[new.target[at]], users[new.user[at]]
            again.append(_Again(new.history(at), item, user, int(new.timestamp[at]), int(new.sample[at])))
    return np.concatenate(gone), again


def _of_log(run: OpenRun, live: LiveMemory, found: _Extent) -> tuple[list[int], list[_Again]]:
    """Numbers of live interactions that have no history any more, and those that have another one."""
    assert live.journal is not None
    log, left = live.log(), found.log
    names, marked = found.before.interactions.user_ids, found.shortened
    touched = {log.user_ids[place] for place in np.flatnonzero(np.isin(log.seq, found.gone)).tolist()}
    touched |= {names[index] for index in marked.tolist()}
    chosen = np.flatnonzero([user in touched for user in left.user_ids])
    if not len(chosen):
        return [], []
    left = left.take(chosen)
    former = log.take(np.flatnonzero([user in touched for user in log.user_ids]))
    old, new = (
        Histories(replace(data, catalog=run.catalog), some, live.base)
        for data, some in ((found.before, former), (found.left, left))
    )
    lost, again = [], []
    for seq, item, user, when, made in zip(
        left.seq.tolist(), left.item_ids, left.user_ids, left.timestamp.tolist(), left.entry.tolist(), strict=True
    ):
        history = new.history(seq)
        if made and not len(history):
            lost.append(seq)
        elif made and not np.array_equal(history, old.history(seq)):
            again.append(_Again(history, item, user, when, live.base + seq))
    return lost, again


def _replace_data(run: OpenRun, live: LiveMemory | None, left: Dataset, progress: StageProgress) -> None:
    """Goes over to the data that are left, and to what the calibration measures in them, in one step."""
    with atomic_folder(run.run.waiting("data"), overwrite=True) as folder:
        left.save(folder)
    parts, changed = ["data"], {"data": left.fingerprint}
    if live is not None and run.run.calibration.is_file():
        train = left.splits.train
        entries = live.entries(run.catalog)
        entries = entries.take(np.flatnonzero(train.places(entries.sample) >= 0))
        file = run.run.waiting(run.run.calibration.name)
        write_arrays(file, measure_again(run, train, entries, progress))
        parts.append(run.run.calibration.name)
        changed["calibration"] = sha256_file(file)
    try:
        replace_parts(run, parts, **changed)
    except BaseException:  # it may have gone over, and only not have come to its end
        if run.manifest["data"] == left.fingerprint:
            run.read(replace(left, catalog=run.catalog), run.prompts)
        raise
