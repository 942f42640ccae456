"""`l2d memory forget`: a user, an item or the past leaves every file of a run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from l2d.cli.display import Stages, say
from l2d.cli.options import Device, Engine, RunFolder

STAYS = "what the tuned weights and the fitted constants learned stays, and so do files outside the run"


def add_to(group: typer.Typer) -> None:
    """Adds the command to the group `memory`."""
    group.command("forget", epilog="Example: `l2d memory forget runs/shop --user 17`")(forget)


def forget(
    run: RunFolder,
    user: Annotated[str | None, typer.Option("--user", metavar="ID", help="Forget all that a user took.")] = None,
    item: Annotated[
        str | None, typer.Option("--item", metavar="ID", help="Forget who took an item; it stays in the catalogue.")
    ] = None,
    before: Annotated[
        datetime | None,
        typer.Option(
            "--before", metavar="DATE", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"],
            help="Forget what is older (UTC), and what is of unknown time unless it is known to be newer.",
        ),
    ] = None,
    device: Device = "auto",
    engine: Engine = "torch",
) -> None:  # fmt: skip
    """Forget a user, an item or the past for good: no file of the run holds it afterwards. Asks nothing.

    What the tuned weights learned stays: nothing but tuning anew takes it out of them.
    """
    from l2d.recommender import Recommender

    cut = None if before is None else int(before.replace(tzinfo=UTC).timestamp())
    with (
        Stages() as stages,
        Recommender.load(run, device=device, engine=engine, writer=True, notice=stages.notice) as opened,
    ):
        done = opened.forget(user=user, item=item, before=cut, progress=stages)
    if not done.interactions:
        say("nothing of that is known here: there was nothing to forget")
        return
    say(f"{done.interactions:,} interactions and {done.entries:,} entries of the memory are forgotten")
    say(f"note: {STAYS}")
