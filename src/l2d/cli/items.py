"""`l2d items`: the catalogue of a run: new items and metadata join it, and it is searched."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from l2d.cli.display import Stages, say, table
from l2d.cli.options import Device, Engine, RunFolder

if TYPE_CHECKING:
    from l2d.recommender import Found

Length = Annotated[int, typer.Option("-k", min=1, metavar="N", help="Most items to print.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON lines.")]


def add_to(app: typer.Typer) -> None:
    """Adds the group."""
    example = "Example: `l2d items add runs/shop new.csv --metadata price --metadata brand`"
    group = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")
    group.command("add", epilog=example)(add)
    group.command("find", epilog='Example: `l2d items find runs/shop "abbey roa"`')(find)
    group.command("list", epilog="Example: `l2d items list runs/shop -k 50`")(show_all)
    app.add_typer(group, name="items", help="The catalogue of a run.", epilog=example)


def add(
    run: RunFolder,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV, TSV, JSON lines or Parquet: an item per record.")],
    item_column: Annotated[str | None, typer.Option(metavar="NAME", help="[default: recognised]")] = None,
    title_column: Annotated[str | None, typer.Option(metavar="NAME", help="[default: recognised]")] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="A column to keep as metadata, of items that are there already, too; may be repeated. An empty cell "
            "takes a value away.",
        ),
    ] = None,
    device: Device = "auto",
    engine: Engine = "auto",
) -> None:
    """Add items by their titles, without training: they may stand in histories, and auto may recommend them."""
    from l2d.recommender import Item, Recommender
    from l2d.sources import Columns
    from l2d.sources.items import read_items, read_metadata

    columns = Columns(item=item_column, title=title_column)
    titles = read_items(file, columns)
    with Stages() as stages:
        opened = Recommender.load(run, device=device, engine=engine, notice=stages.notice)
        described = read_metadata(file, metadata, columns, text=opened.catalog.text_columns) if metadata else {}
        items = [Item(item, title, described.get(item)) for item, title in titles.items()]
        found = opened.put_items(items, progress=stages)
    say(f"{found.added:,} items added, {found.known:,} were there already; the catalogue has {len(opened.catalog):,}")
    if found.updated:
        say(f"metadata set of {found.updated:,} of those that were there")
    if found.added and not found.recommendable:
        say(f"next: l2d calibrate {run}, so that they can be recommended")


def find(
    run: RunFolder,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="An id, or part of a title; spelling may be rough.")],
    k: Length = 20,
    as_json: AsJson = False,
    device: Device = "auto",
) -> None:
    """Search the catalogue."""
    from l2d.recommender import Recommender

    show(Recommender.load(run, device=device, engine="torch").find_items(query, k=k), as_json)


def show_all(run: RunFolder, k: Length = 20, as_json: AsJson = False, device: Device = "auto") -> None:
    """List the items with most memory entries."""
    find(run, "", k, as_json, device)


def show(found: Sequence[Found], as_json: bool) -> None:
    """Prints items as JSON lines, or as a table."""
    if as_json:
        for one in found:
            record = {"item_id": one.item_id, "title": one.title, "entries": one.entries, "metadata": one.metadata}
            say(json.dumps(record, ensure_ascii=False, allow_nan=False))
    elif not found:
        say("nothing in the catalogue is like that")
    else:
        rows = [
            (str(one.item_id), one.title, f"{one.entries:,}", json.dumps(one.metadata, ensure_ascii=False)[:80])
            for one in found
        ]
        table(("item_id", "title", "entries", "metadata"), rows, left=(0, 1, 3))
