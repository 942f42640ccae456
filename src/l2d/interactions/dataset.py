"""The prepared data set: in memory, on disk, and with something of it forgotten."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from l2d.artifacts import folder_checksums, read_json, sha256_text, verify_checksums, write_json
from l2d.catalog import Catalog
from l2d.errors import ArtifactCorrupt, ArtifactMissing, ConfigError, DataError
from l2d.interactions.log import SPLITS, UNKNOWN_TIME, Examples, Interactions, Splits


@dataclass(frozen=True)
class Dataset:
    """What `l2d prepare` writes: catalogue, interactions, splits, and a record of how they came about.

    Args:
        catalog: the items.
        interactions: all interactions, every split's.
        splits: the examples.
        info: what was read, dropped and why, with the options used (JSON values).
    """

    catalog: Catalog
    interactions: Interactions
    splits: Splits
    info: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def train_rows(self) -> NDArray[np.int32]:
        """Rows that occur in a training history or as a training target: all that may be known at the cut."""
        return np.unique(self.interactions.row[_covered([self.splits.train], len(self.interactions))])

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the catalogue, the interactions and the splits."""
        arrays = [self.interactions.user, self.interactions.row, self.interactions.timestamp]
        arrays += [part for name in SPLITS for part in (self.splits[name].start, self.splits[name].end)]
        arrays += [] if self._counted else [self.splits[name].sample for name in SPLITS]
        return sha256_text(self.catalog.fingerprint, *(np.ascontiguousarray(array).tobytes() for array in arrays))

    @property
    def next_sample(self) -> int:
        """The first sample number that no example has, nor any after it."""
        return 1 + max(int(self.splits[name].sample.max(initial=-1)) for name in SPLITS)

    @cached_property
    def longest_history(self) -> int:
        """Most items of a history; as it was before anything was forgotten, since requests are cut by it."""
        lengths = (int(self.splits[name].history_length.max()) for name in SPLITS)
        return int(self.info.get("longest_history", 0)) or max(lengths)

    @property
    def _counted(self) -> bool:
        """Whether sample numbers are what counting through gives, as they are until something is forgotten."""
        numbers = np.concatenate([self.splits[name].sample for name in SPLITS])
        return bool(np.array_equal(numbers, np.arange(len(numbers))))

    def forgetting(
        self, *, user: str | int | None = None, item: str | int | None = None, before: int | None = None
    ) -> Dataset:
        """What is left when a user, an item or the past is forgotten; exactly one of the three.

        Examples whose target is forgotten are gone, as are those without a history left; other histories lack what is
        forgotten. Items keep their rows and examples their sample numbers; a user without interactions is gone.

        Args:
            user: the id; one that is not there leaves nothing to forget.
            item: the id; the item itself stays in the catalogue.
            before: unix seconds; what is older is forgotten, and with it what is of unknown time, unless the last known
                time before it, in the same window or of the same user, shows that it is not older.

        Returns:
            The data set itself, where nothing is forgotten.

        Raises:
            ConfigError: not exactly one of the three, or `before` where no time is known.
            UnknownItem: no such item.
            DataError: a split would have no example left.
        """
        kept = ~self.forgotten(user=user, item=item, before=before)
        if kept.all():
            return self
        log, before_it, left = self.interactions, np.concatenate([[0], np.cumsum(kept)]), {}
        for name in SPLITS:
            part = self.splits[name]
            something = (before_it[part.end] > before_it[part.start]) | (part.end == part.start)
            left[name] = part.take(np.flatnonzero(kept[part.end] & something))
            if not len(left[name]):
                unknown = float((log.timestamp == UNKNOWN_TIME).mean())
                got = (
                    f"{unknown:.0%} of the interactions are of unknown time" if before is not None and unknown else None
                )
                cure = "forget less, or prepare anew"
                raise DataError(f"the {name} split would have no example left", got=got, cure=cure)
        if "windows" in self.info:  # what belonged to a window that is gone is shown by no example any more
            kept &= _covered(left.values(), len(log))
        place = np.concatenate([[0], np.cumsum(kept)])
        users, owner = np.unique(log.user[kept], return_inverse=True)
        names = tuple(log.user_ids[index] for index in users)
        rest = Interactions(names, owner.astype(np.int32), log.row[kept], log.timestamp[kept])
        splits = {name: Examples(rest, place[part.start], place[part.end], part.sample) for name, part in left.items()}
        info = self.info | {"longest_history": self.longest_history}
        return replace(self, interactions=rest, splits=Splits(**splits), info=info)

    def forgotten(
        self, *, user: str | int | None = None, item: str | int | None = None, before: int | None = None
    ) -> NDArray[np.bool_]:
        """Which interactions `forgetting` forgets; arguments and errors as there. Shape: (interactions,)."""
        if sum(given is not None for given in (user, item, before)) != 1:
            raise ConfigError("what is to be forgotten?", expected="a user, an item or a time, and one of them alone")
        log = self.interactions
        if user is not None:
            return log.user == self._user_index.get(str(user), -1)
        if item is not None:
            return log.row == self.catalog.row(item)
        assert before is not None
        known, begins = log.timestamp != UNKNOWN_TIME, np.zeros(len(log) + 1, dtype=bool)
        if not known.any():
            raise ConfigError("no interaction has a time", got=f"before {before}", cure="name a user or an item")
        begins[log.user_starts] = True
        if "windows" in self.info:
            for name in SPLITS:
                begins[self.splits[name].start] = begins[self.splits[name].end + 1] = True
        last = np.maximum.accumulate(np.where(known | begins[:-1], np.arange(len(log)), 0))
        older: NDArray[np.bool_] = log.timestamp[last] < before  # an unknown time is less than any
        return older

    def user_history(self, user_id: str | int, limit: int = 10) -> NDArray[np.int32]:
        """The latest rows of one user, oldest first.

        Raises:
            DataError: no such user.
        """
        index = self._user_index.get(str(user_id))
        if index is None:
            raise DataError("unknown user", got=repr(user_id), cure="give a history with --history instead")
        start, stop = self._latest[index].tolist()
        return self.interactions.row[start:stop][-limit:]

    def knows(self, user_id: str | int) -> bool:
        """Whether a user is in the data."""
        return str(user_id) in self._user_index

    @cached_property
    def _latest(self) -> NDArray[np.int64]:
        """Where each user's rows begin and end; windows repeat histories, so there the last one's. Shape: (n, 2)."""
        log, spans = self.interactions, np.zeros((len(self.interactions.user_ids), 2), dtype=np.int64)
        if "windows" in self.info:
            for part in (self.splits[name] for name in SPLITS):
                spans[part.user] = np.stack([part.start, part.end + 1], axis=1)  # of several, the last one stays
        else:
            spans[log.user[log.user_starts[:-1]]] = np.stack([log.user_starts[:-1], log.user_starts[1:]], axis=1)
        return spans

    @cached_property
    def _user_index(self) -> dict[str, int]:
        return {user: index for index, user in enumerate(self.interactions.user_ids)}

    def save(self, folder: Path) -> None:
        """Writes the Parquet files into an existing folder, and last `dataset.json` with their checksums."""
        self.catalog.save(folder / "catalog.parquet")
        pl.DataFrame({"user_id": self.interactions.user_ids}, schema={"user_id": pl.String}).write_parquet(
            folder / "users.parquet"
        )
        log = {"user": self.interactions.user, "row": self.interactions.row, "timestamp": self.interactions.timestamp}
        pl.DataFrame(log).write_parquet(folder / "interactions.parquet")
        parts = [
            pl.DataFrame({"start": self.splits[name].start, "end": self.splits[name].end}).with_columns(
                split=pl.lit(name), sample=self.splits[name].sample
            )
            for name in SPLITS
        ]
        pl.concat(parts).drop(["sample"] if self._counted else []).write_parquet(folder / "examples.parquet")
        record = {"format": 1, "fingerprint": self.fingerprint, "info": self.info, "files": folder_checksums(folder)}
        write_json(folder / "dataset.json", record)

    @classmethod
    def load(cls, folder: Path) -> Dataset:
        """Reads what `save` wrote, checksums first.

        Raises:
            ArtifactMissing: not a prepared folder.
            ArtifactCorrupt: a file changed since it was written.
        """
        if not (folder / "dataset.json").is_file():
            raise ArtifactMissing(f"{folder} is not prepared data", cure="run `l2d prepare SOURCE --out DATA` first")
        record = read_json(folder / "dataset.json")
        verify_checksums(folder, record["files"])
        users = tuple(pl.read_parquet(folder / "users.parquet")["user_id"].to_list())
        log = pl.read_parquet(folder / "interactions.parquet")
        interactions = Interactions(users, log["user"].to_numpy(), log["row"].to_numpy(), log["timestamp"].to_numpy())
        table = pl.read_parquet(folder / "examples.parquet")
        parts = {}
        for name in SPLITS:
            part = table.filter(pl.col("split") == name)
            numbers = part["sample"].to_numpy() if "sample" in part.columns else None
            parts[name] = Examples(interactions, part["start"].to_numpy(), part["end"].to_numpy(), numbers)
        dataset = cls(Catalog.load(folder / "catalog.parquet"), interactions, Splits(**parts), record["info"])
        if dataset.fingerprint != record["fingerprint"]:
            raise ArtifactCorrupt(f"{folder} does not match its fingerprint", cure="run `l2d prepare` again")
        return dataset


def _covered(parts: Iterable[Examples], interactions: int) -> NDArray[np.bool_]:
    """Which interactions are the target or in the history of one of the examples. Shape: (interactions,)."""
    deltas = np.zeros(interactions + 1, dtype=np.int64)
    for part in parts:
        np.add.at(deltas, part.start, 1)
        np.add.at(deltas, part.end + 1, -1)
    return np.cumsum(deltas[:-1]) > 0
