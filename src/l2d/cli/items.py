"""`l2d items add`: new items join a run by their titles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from l2d.cli.display import Stages, say
from l2d.cli.options import Device, Engine, RunFolder


def add_to(app: typer.Typer) -> None:
    """Adds the group."""
    group = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")
    group.command("add", epilog="Example: `l2d items add runs/shop new.csv`")(add)
    app.add_typer(
        group, name="items", help="The catalogue of a run.", epilog="Example: `l2d items add runs/shop new.csv`"
    )


def add(
    run: RunFolder,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV, TSV, JSON lines or Parquet: an item per record.")],
    item_column: Annotated[str | None, typer.Option(metavar="NAME", help="[default: recognised]")] = None,
    title_column: Annotated[str | None, typer.Option(metavar="NAME", help="[default: recognised]")] = None,
    device: Device = "auto",
    engine: Engine = "auto",
) -> None:
    """Add items by their titles, without training: they may stand in histories, and auto may recommend them."""
    from l2d.recommender import Recommender
    from l2d.sources import Columns
    from l2d.sources.items import read_items

    titles = read_items(file, Columns(item=item_column, title=title_column))
    with Stages() as stages:
        opened = Recommender.load(run, device=device, engine=engine, notice=stages.notice)
        found = opened.add_items(titles, progress=stages)
    say(f"{found.added:,} items added, {found.known:,} were there already; the catalogue has {len(opened.catalog):,}")
    if found.added and not found.recommendable:
        say(f"next: l2d calibrate {run}, so that they can be recommended")
