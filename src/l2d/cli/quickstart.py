"""`l2d quickstart`: the whole path on the embedded demo shop."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from l2d.cli.display import Stages, report_table, say
from l2d.cli.options import JsonFile, Overwrite
from l2d.cli.recommend import show

if TYPE_CHECKING:
    from l2d.recommender import Recommender, Report

RUN = Path("runs/quickstart")
"""Where the run goes that nobody named."""

SHOWN_HISTORY = 4
"""Items of the history that is recommended for in words."""


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("quickstart", epilog="Example: `l2d quickstart --out runs/demo`")(quickstart)


def quickstart(
    out: Annotated[Path, typer.Option("--out", metavar="RUN", help="The run directory to make.")] = RUN,
    json: JsonFile = None,
    overwrite: Overwrite = False,
) -> None:
    """Make a demo shop, tune scratch:tiny on it, build the memory, calibrate, compare. About three minutes."""
    from l2d.artifacts import refuse_existing, write_json

    refuse_existing(out, overwrite=overwrite)
    from l2d.recommender import quickstart as demonstrate

    with Stages() as stages:
        run, report = demonstrate(out, overwrite=overwrite, progress=stages, notice=stages.notice)
    if json is not None:
        write_json(json, report.to_json())
    report_table(report)
    recommend_in_words(run)
    say_where_to_go(run, report)


def recommend_in_words(run: Recommender) -> None:
    """Shows one test user's history, the list for it, and what that user took next."""
    titles = run.catalog.titles
    history, target = next(
        (example for example in run.dataset.splits.test if len(example.history) >= SHOWN_HISTORY),
        run.dataset.splits.test[0],
    )
    say("One reader of the test split had, oldest first:")
    for row in history.tolist():
        say(f"  {titles[row]}")
    say("auto recommends:")
    show(run.recommend([run.catalog.item_id(row) for row in history.tolist()], k=5, exclude_seen=True))
    say(f"and the reader took next: {titles[target]}")


def say_where_to_go(run: Recommender, report: Report) -> None:
    """The last lines: how far the table carries, and what to do next."""
    say()
    say(f"Measured on {report.users:,} {report.split} users of a made-up shop; ± is half the 95 % bootstrap interval.")
    say("Beam search takes a step per title token and latent decoding none: the speed-up grows with title length.")
    say("Results on real data: docs/results.md")
    say(f'This run takes every other command: l2d recommend {run.path} --history "{run.catalog.titles[0]}"')
    say("An LLM that you have tuned already: l2d adopt DATA --backbone PATH --template FILE --out RUN")
