"""The table of formats: who reads it, which splits it allows, which columns may be named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from l2d.errors import ConfigError
from l2d.sources import amazon, d3, log, movielens, sequences, windows
from l2d.sources.columns import Columns
from l2d.sources.reading import Reading, Request

SplitRule = Literal["temporal", "given", "leave-last-out"]


@dataclass(frozen=True)
class Format:
    """One input format.

    Args:
        read: its reader.
        splits: the splits that make sense, the default first.
        roles: which of user, item, time, title may be named by the user.
        about: one line for help texts.
    """

    read: Callable[[Request], Reading]
    splits: tuple[SplitRule, ...]
    roles: tuple[str, ...]
    about: str


LOG: tuple[SplitRule, ...] = ("temporal", "leave-last-out")
FORMATS: dict[str, Format] = {
    "log": Format(
        log.read, LOG, ("user", "item", "time", "title"), "CSV, TSV, JSON lines or Parquet, one interaction each"
    ),
    "movielens": Format(movielens.read, LOG, (), "ratings.dat, u.data or ratings.csv with its movies"),
    "amazon-2014": Format(amazon.read_2014, LOG, ("user", "item", "time"), "reviews and Python-literal metadata"),
    "amazon-2018": Format(amazon.read_2018, LOG, ("user", "item", "time"), "reviews and metadata as JSON lines"),
    "amazon-2023": Format(amazon.read_2023, LOG, ("user", "item", "time"), "reviews (parent_asin, ms) and metadata"),
    "d3": Format(d3.read, ("given",), (), "train/valid/test with Python lists, info.txt"),
    "windows": Format(windows.read, ("given",), (), "train/valid/test with id lists, items.csv"),
    "sequences": Format(
        sequences.read, ("leave-last-out",), ("user", "item", "title"), "one ordered list per user, items.csv"
    ),
}


def check(name: str, split: SplitRule | None, columns: Columns, k_core: int) -> SplitRule:
    """The split to use with a format.

    Raises:
        ConfigError: the format and an option contradict each other.
    """
    form = FORMATS[name]
    for role in ("user", "item", "time", "title"):
        if getattr(columns, role) is not None and role not in form.roles:
            raise ConfigError(
                f"the {role} column of format {name} is fixed",
                got=f"--{role}-column {getattr(columns, role)}",
                cure="leave the option out, or read the file with --format log",
            )
    if split is not None and split not in form.splits:
        raise ConfigError(
            f"format {name} cannot be split so", got=split, expected=" or ".join(form.splits), cure=_cure(name, split)
        )
    if k_core > 1 and "given" in form.splits:
        raise ConfigError(
            "a k-core would change the given examples", got=f"--k-core {k_core}", cure="leave --k-core out"
        )
    return split or form.splits[0]


def _cure(name: str, split: SplitRule) -> str:
    if split == "given":
        return "a log has no splits of its own: use --split temporal"
    if FORMATS[name].splits == ("given",):
        return "these examples are already split by their files: use --split given"
    return "sequences have no times: use --split leave-last-out"
