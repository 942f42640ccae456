"""`l2d evaluate`: what each decoder is worth, and what it costs."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from l2d.cli.display import Stages, report_table, say
from l2d.cli.options import Approximate, Decoders, Device, Engine, ExcludeSeen, JsonFile, RunFolder, Seed

SplitOption = Annotated[
    Literal["valid", "test"], typer.Option("--split", help="Choose on validation; look at test once.")
]


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    example = "Example: `l2d evaluate runs/shop --decoder global --decoder vote --split test --json results.json`"
    app.command("evaluate", epilog=example)(evaluate)


def users_of(text: str) -> int | None:
    """The number of users to judge, None for all.

    Raises:
        BadParameter: neither a number above 0 nor `all`.
    """
    if text == "all":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise typer.BadParameter(f"{text!r} is neither a number above 0 nor `all`", param_hint="--users")
    return int(text)


def judged(users: int, split: str, exclude_seen: bool) -> str:
    """Who was asked, in words."""
    return f"{users:,} {split} users{', their own histories left out' if exclude_seen else ''}"


def evaluate(
    run: RunFolder,
    decoder: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help=f"{Decoders}; may be repeated. [default: global, local, vote, popularity, cooccurrence]",
        ),
    ] = None,
    split: SplitOption = "valid",
    users: Annotated[
        str, typer.Option(metavar="N|all", help="A seeded sample of users, the same for every row.")
    ] = "all",
    exclude_seen: ExcludeSeen = False,
    timing: Annotated[bool, typer.Option("--timing/--no-timing", help="Time single requests, in turn.")] = True,
    json: JsonFile = None,
    seed: Seed = 0,
    device: Device = "auto",
    engine: Engine = "auto",
    approximate: Approximate = False,
) -> None:
    """Measure decoders over the full catalogue: quality with intervals, and milliseconds of single requests."""
    count = users_of(users)
    from l2d.artifacts import write_json
    from l2d.recommender import Recommender

    with Stages() as stages:
        opened = Recommender.load(run, device=device, engine=engine, approximate=approximate, notice=stages.notice)
        report = opened.evaluate(
            decoder or None,
            split=split,
            users=count,
            exclude_seen=exclude_seen,
            seed=seed,
            timing=timing,
            progress=stages,
            notice=stages.notice,
        )
    if json is not None:
        write_json(json, report.to_json())
    report_table(report)
    say(f"{judged(report.users, report.split, report.exclude_seen)}; ± is half the 95 % bootstrap interval")
