"""`l2d calibrate`: constants of auto and recall, and what each ingredient of auto gives."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from l2d.cli.display import Stages, say, table
from l2d.cli.options import Device, Engine, RunFolder

if TYPE_CHECKING:
    from l2d.decode import Calibration


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("calibrate", epilog="Example: `l2d calibrate runs/shop`")(calibrate)


def calibrate(
    run: RunFolder,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of the validation sample and its halves.")] = 0,
    device: Device = "auto",
    engine: Engine = "auto",
) -> None:
    """Fit the decoders auto (thought and counts) and recall (thought alone) on the validation split. Takes minutes."""
    from l2d.recommender import Recommender

    with Stages() as stages:
        opened = Recommender.load(run, device=device, engine=engine, notice=stages.notice)
        found = opened.calibrate(seed=seed, progress=stages)
    show(found)
    other = opened.constants.recall
    assert other is not None
    say(f"recall, without counts: NDCG@10 {other.ndcg['recall']:.4f}; judged on the other half: {other.held_out:.4f}")
    say(f"auto answers now where no decoder is named: l2d recommend {run} --history TITLE")


def show(found: Calibration) -> None:
    """Prints the constants of auto and what each ingredient gives."""
    constants = ((name, "none" if value is None else f"{value:g}") for name, value in asdict(found.recipe).items())
    table(("constant", "fitted"), constants, left=(0,))
    whole = found.ndcg["auto"]
    rows = [
        (name, f"{value:.4f}", "" if name == "auto" else f"{value - whole:+.4f}") for name, value in found.ndcg.items()
    ]
    table(("validation", "NDCG@10", "difference"), rows, left=(0,))
    say(f"{found.requests:,} requests; fitted on one half of the users and judged on the other: {found.held_out:.4f}")
