"""Request and options -> a cleaned, sorted, filtered log with its catalogue, and a note on everything that was done."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2d.catalog import Catalog
from l2d.errors import ConfigError, DataError
from l2d.interactions import UNKNOWN_TIME, Interactions
from l2d.sources.cleaning import clean_title, cut_words
from l2d.sources.columns import Columns
from l2d.sources.detect import detect
from l2d.sources.filters import Log, compact, first_of_each, in_order, k_core
from l2d.sources.formats import FORMATS, SplitRule, check
from l2d.sources.reading import Reading, Request, Windows, note
from l2d.sources.times import NO_INSTANT, SECOND


@dataclass(frozen=True)
class Options:
    """What `prepare` was asked for; saved in `Dataset.info`.

    Args:
        format: a name in `FORMATS`, or `auto`.
        split: how to split; None: the format's own way.
        columns: names given by the user.
        k_core: fewest interactions of every user and item; 1 keeps all.
        max_history: most items in a history; None: 10 for logs and sequences, given windows stay as they are.
        max_title_words: titles are cut after so many words; None keeps them whole.
    """

    format: str = "auto"
    split: SplitRule | None = None
    columns: Columns = field(default_factory=Columns)
    k_core: int = 1
    max_history: int | None = None
    max_title_words: int | None = None

    def __post_init__(self) -> None:
        wrong = []
        if self.format not in ("auto", *FORMATS):
            wrong.append(f"--format {self.format} is none of auto, {', '.join(FORMATS)}")
        if self.split not in (None, "temporal", "given", "leave-last-out"):
            wrong.append(f"--split {self.split} is none of temporal, given, leave-last-out")
        for name, value in (
            ("k-core", self.k_core),
            ("max-history", self.max_history),
            ("max-title-words", self.max_title_words),
        ):
            if value is not None and value < 1:
                wrong.append(f"--{name} {value} is less than 1")
        if wrong:
            raise ConfigError("; ".join(wrong), cure="change the options")


@dataclass(frozen=True)
class Loaded:
    """A cleaned source before it is split.

    Args:
        catalog: the items that stay.
        interactions: what stays of the log.
        windows: ready examples, or None.
        split: the split to use.
        notes: the report so far.
        facts: format, reason, files, columns, units.
    """

    catalog: Catalog
    interactions: Interactions
    windows: Windows | None
    split: SplitRule
    notes: list[dict[str, Any]]
    facts: dict[str, Any]


def load(request: Request, options: Options) -> Loaded:
    """Detects, reads and cleans."""
    found = (options.format, "named") if options.format != "auto" else detect(request.source, request.columns)
    split = check(found[0], options.split, request.columns, options.k_core)
    reading = FORMATS[found[0]].read(request)
    if split == "temporal" and not reading.timed:
        raise DataError(
            f"{request.source} has no time column, so it cannot be split by time",
            cure="name it with --time-column, or use --split leave-last-out",
        )
    facts = {"format": found[0], "recognised": found[1], "source": str(request.source), **reading.facts}
    titles, notes = clean_titles(reading, options.max_title_words)
    log = Log(reading.user, reading.item, reading.instant)
    reading = replace(
        reading, user=log.user[:0], item=log.item[:0], instant=log.instant[:0]
    )  # frees them while sorting
    notes = [*reading.notes, *notes]
    if reading.windows is None:
        log, dropped = filtered([log], np.array([bool(title) for title in titles]), options.k_core, timed=reading.timed)
        notes += dropped
    catalog, interactions = assemble(reading, titles, log, keep_idle=options.k_core == 1)
    return Loaded(catalog, interactions, reading.windows, split, [*notes, *shared_titles(catalog)], facts)


def clean_titles(reading: Reading, max_words: int | None) -> tuple[list[str], list[dict[str, Any]]]:
    """Cleaned titles in the order of `item_ids`, empty for items that have none, and what to report.

    A title of nothing but markup counts as none in a log. Ready examples keep it as it stands: dropping the item
    would change the examples that published figures refer to.
    """
    given = reading.windows is not None
    titles, counts = [], dict.fromkeys(("cleaned", "cut", "markup"), 0)
    for item in reading.item_ids:
        raw = reading.titles.get(item, "")
        title = clean_title(raw)
        if not title and raw.strip():
            counts["markup"] += 1
            title = " ".join(raw.split()) if given else ""
        else:
            counts["cleaned"] += title != raw
        short = cut_words(title, max_words)
        counts["cut"] += short != title
        titles.append(short)
    reasons = {
        "cleaned": ("changed", "entities, tags, control characters or blanks put right"),
        "cut": ("changed", f"cut to {max_words} words"),
        "markup": ("found", "nothing but markup: " + ("kept as given" if given else "counts as no title")),
    }
    return titles, [note(action, "titles", counts[key], why) for key, (action, why) in reasons.items() if counts[key]]


def filtered(logs: list[Log], titled: NDArray[np.bool_], k: int, *, timed: bool) -> tuple[Log, list[dict[str, Any]]]:
    """Sorts a log and drops repeats, items without a title, and what a k-core leaves out.

    Args:
        logs: one log, which is taken out of the list so that its memory can be reused.
        titled: whether each item has a title. Shape: (items,).
        k: the k of the k-core.
        timed: whether the log has times; without, an equal pair of user and item is no duplicate.
    """
    log, unsorted = in_order(logs.pop())
    notes = [note("changed", "interactions", unsorted, "were not in order of time; sorted")] if unsorted else []
    if timed:
        log = _keep(log, first_of_each(log), "interactions", "same user, item and time as another", notes)
    missing = int(np.count_nonzero(np.bincount(log.item, minlength=len(titled))[~titled]))
    log = _keep(log, titled[log.item], "interactions", f"{missing} items without a title", notes)
    if k > 1:
        keep, rounds = k_core(log, k)
        log = _keep(log, keep, "interactions", f"{k}-core of users and items, {rounds} rounds", notes)
    if not len(log):
        why = "; ".join(f"{record['count']} {record['what']}: {record['why']}" for record in notes)
        raise DataError("no interaction is left", got=why, cure="relax --k-core, or check the titles of the items")
    return log, notes


def _keep(log: Log, keep: NDArray[np.bool_], what: str, why: str, notes: list[dict[str, Any]]) -> Log:
    dropped = len(log) - int(np.count_nonzero(keep))
    if not dropped:
        return log
    notes.append(note("dropped", what, dropped, why))
    return log.take(keep)


def assemble(reading: Reading, titles: list[str], log: Log, *, keep_idle: bool) -> tuple[Catalog, Interactions]:
    """Catalogue and interactions of what stays, rows and users renumbered without gaps.

    Args:
        reading: for the ids.
        titles: cleaned, in the order of its item ids.
        log: sorted and filtered.
        keep_idle: whether titled items that nobody took stay in the catalogue.
    """
    titled = np.array([bool(title) for title in titles], dtype=np.bool_)
    taken = np.bincount(log.item, minlength=len(titles)) > 0
    items = titled if keep_idle else titled & taken
    users = np.bincount(log.user, minlength=len(reading.user_ids)) > 0
    places = np.flatnonzero(items).tolist()
    catalog = Catalog(tuple(reading.item_ids[place] for place in places), tuple(titles[place] for place in places))
    seconds = np.where(log.instant == NO_INSTANT, UNKNOWN_TIME, log.instant // SECOND)
    user_ids = tuple(reading.user_ids[place] for place in np.flatnonzero(users).tolist())
    return catalog, Interactions(user_ids, compact(log.user, users), compact(log.item, items), seconds)


def shared_titles(catalog: Catalog) -> list[dict[str, Any]]:
    """Reports titles that several items have: they stay, and evaluation shows title match beside id match."""
    surplus = len(catalog) - len(set(catalog.titles))
    return [note("found", "items", surplus, "share their title with an earlier item; kept")] if surplus else []
