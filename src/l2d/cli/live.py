"""`l2d memory add`, `versions`, `compact` and `roll-back`: a memory that lives."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from l2d.cli.display import NO_FIGURE, Stages, say, table
from l2d.cli.options import Device, Engine, RunFolder

AT_ONCE = 512
"""Interactions of a file that are written together: the most that a kill costs."""

LOGS = "auto, log, movielens, amazon-2014, amazon-2018 or amazon-2023."


def add_to(group: typer.Typer) -> None:
    """Adds the commands to the group `memory`."""
    group.command("add", epilog="Example: `l2d memory add runs/shop today.csv`")(add)
    group.command("versions", epilog="Example: `l2d memory versions runs/shop`")(versions)
    group.command("compact", epilog="Example: `l2d memory compact runs/shop --keep 5`")(compact)
    group.command("roll-back", epilog="Example: `l2d memory roll-back runs/shop 12`")(roll_back)


def _column(role: str) -> Any:
    return typer.Option(
        f"--{role}-column", metavar="NAME", help=f"The column of the {role}, where it is not recognised."
    )


def add(
    run: RunFolder,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A log, as for `prepare`; no titles are needed.")],
    format: Annotated[str, typer.Option(metavar="FORMAT", help=LOGS)] = "auto",
    user_column: Annotated[str | None, _column("user")] = None,
    item_column: Annotated[str | None, _column("item")] = None,
    time_column: Annotated[str | None, _column("time")] = None,
    skip_unknown: Annotated[
        bool, typer.Option("--skip-unknown", help="Leave out interactions with items that the catalogue lacks.")
    ] = False,
    device: Device = "auto",
    engine: Engine = "auto",
) -> None:
    """Add later interactions in the order of their times; stopped half-way, the same command goes on."""
    from l2d.errors import UnknownItem
    from l2d.recommender import Interaction, Recommender
    from l2d.sources import Columns
    from l2d.sources.arrivals import read_arrivals

    with Stages() as stages:
        columns = Columns(user=user_column, item=item_column, time=time_column)
        log = read_arrivals(
            file, format=format, columns=columns, progress=lambda done, total: stages("reading", done, total)
        )
        with Recommender.load(
            run, device=device, engine=engine, writer=True, progress=stages, notice=stages.notice
        ) as opened:
            known = set(opened.catalog.item_ids)
            strange = sorted({item for item in log.item_ids if item not in known})
            if strange and not skip_unknown:
                some = ", ".join(map(repr, strange[:3])) + (", ..." if len(strange) > 3 else "")
                cure = f"add them first with `l2d items add {run} FILE`, or pass --skip-unknown"
                raise UnknownItem(f"{len(strange)} items of {file} are not in the catalogue", got=some, cure=cure)
            asked = [
                Interaction(user, item, when)
                for user, item, when in zip(log.user_ids, log.item_ids, log.timestamp.tolist(), strict=True)
                if item in known
            ]
            added = entries = 0
            for start in range(0, len(asked), AT_ONCE):
                part = asked[start : start + AT_ONCE]
                written = opened.add_interactions(part)
                added, entries = added + written.added, entries + written.entries
                stages("adding", start + len(part), len(asked))
            opened.move()
            version = opened.version
    say(f"{added:,} interactions added, {entries:,} of them as entries; {len(asked) - added:,} were there already")
    if len(log) > len(asked):
        say(f"{len(log) - len(asked):,} skipped, whose {len(strange):,} items are not in the catalogue")
    if log.untimed:
        say(f"{log.untimed:,} skipped, which have no time")
    say(f"the memory's version is {version}")


def versions(run: RunFolder, device: Device = "auto") -> None:
    """List the states of a memory that `roll-back` can return to; the last one is the present one."""
    from l2d.recommender import Recommender

    rows = [
        (f"{one.version}", f"{one.entries:,}", f"{one.moved:,}", _time(one.time), one.what)
        for one in Recommender.load(run, device=device, engine="torch").versions()
    ]
    table(("version", "entries", "live interactions", "made", "by"), rows, left=(3, 4))


def compact(
    run: RunFolder,
    keep: Annotated[int, typer.Option(min=1, metavar="N", help="Versions that stay, the present one among them.")] = 1,
    device: Device = "auto",
) -> None:
    """Move what waits in the journal, join small files and drop old versions."""
    from l2d.recommender import Recommender

    with Recommender.load(run, device=device, engine="torch", writer=True) as opened:
        before = opened.memory_info().bytes
        opened.compact(keep=keep)
        info, kept = opened.memory_info(), len(opened.versions())
    say(f"{kept} versions kept; {before / 1e6:,.1f} MB before, {info.bytes / 1e6:,.1f} MB now")


def roll_back(
    run: RunFolder,
    version: Annotated[int, typer.Argument(metavar="VERSION", help="A number that `l2d memory versions` lists.")],
    device: Device = "auto",
) -> None:
    """Go back to an earlier version; live interactions that it had not taken in are deleted."""
    from l2d.recommender import Recommender

    with Recommender.load(run, device=device, engine="torch", writer=True) as opened:
        undone, size, now = opened.roll_back(version), opened.memory_info().entries, opened.version
    say(f"{undone:,} live interactions deleted; {size:,} entries are left, as version {now}")


def _time(seconds: int) -> str:
    return NO_FIGURE if not seconds else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
