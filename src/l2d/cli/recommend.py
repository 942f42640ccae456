"""`l2d recommend`: a history becomes a list."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from l2d.cli.asking import read_condition, read_requests
from l2d.cli.display import Stages, remark, say, table
from l2d.cli.options import Approximate, Decoders, Device, Engine, ExcludeSeen, RunFolder
from l2d.errors import ConfigError

if TYPE_CHECKING:
    from l2d.recommender import Recommendation, Recommender

BATCH = 256
"""Requests of a file that are answered together."""

Items = list[str] | None


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    example = 'Example: `l2d recommend runs/shop --history "Abbey Road" --history "Let It Be" -k 5`'
    app.command("recommend", epilog=example)(recommend)


def recommend(
    run: RunFolder,
    history: Annotated[
        Items, typer.Option(metavar="TITLE_OR_ID", help="One item of the history; once per item, oldest first.")
    ] = None,
    user: Annotated[str | None, typer.Option(metavar="ID", help="A user of the prepared data.")] = None,
    requests: Annotated[
        Path | None,
        typer.Option(metavar="FILE.jsonl", help="A request per line; a JSON line is printed for each. `-`: stdin."),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, metavar="N", help="Length of the list.")] = 10,
    decoder: Annotated[
        str | None,
        typer.Option(metavar="NAME", help=f"{Decoders}. [default: auto, or vote where the run is not calibrated]"),
    ] = None,
    neighbours: Annotated[
        int | None, typer.Option(min=1, metavar="M", help="Nearest entries, for local and vote. [default: as fitted]")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(metavar="T", help="Of the vote's weights. [default: as fitted]")
    ] = None,
    exclude_seen: ExcludeSeen = False,
    exclude: Annotated[
        Items, typer.Option(metavar="TITLE_OR_ID", help="An item to leave out; may be repeated.")
    ] = None,
    allow: Annotated[
        Items, typer.Option(metavar="TITLE_OR_ID", help="Recommend only such items; may be repeated.")
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            metavar="JSON", help='Recommend only items with such metadata: `{"brand": "Sony", "price": {"lt": 20}}`.'
        ),
    ] = None,
    minimum_entries: Annotated[
        int, typer.Option(min=0, metavar="N", help="Least memory entries of an item; 0: known by its title is enough.")
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
    device: Device = "auto",
    engine: Engine = "auto",
    approximate: Approximate = False,
) -> None:
    """Recommend the next items for a history, a user, or a file of requests."""
    if sum(bool(given) for given in (history, user is not None, requests is not None)) != 1:
        raise ConfigError(
            "it is not clear for whom to recommend",
            expected="one of --history, --user, --requests",
            cure="give exactly one",
        )
    if temperature is not None and not temperature > 0:
        raise ConfigError("the temperature is too small", got=temperature, expected="above 0")
    if requests is not None and (exclude or allow or where is not None):
        raise ConfigError(
            "--exclude, --allow and --where do not go with --requests",
            cure="write them into the lines of the file, the last one as `filter`",
        )
    condition = None if where is None else read_condition(where)
    from l2d.recommender import Recommender

    opened = Recommender.load(run, device=device, engine=engine, approximate=approximate, notice=remark)
    options: dict[str, Any] = {
        "decoder": decoder,
        "neighbours": neighbours,
        "temperature": temperature,
        "exclude_seen": exclude_seen,
        "minimum_entries": minimum_entries,
    }
    if requests is not None:
        answer_file(opened, requests, k, options)
        return
    known = opened.user_history(user) if user is not None else list(history or ())
    found = opened.recommend(known, k=k, exclude=exclude or (), allow=allow or None, filter=condition, **options)
    if as_json:
        say(json_line(found))
    else:
        show(found)


def answer_file(run: Recommender, path: Path, k: int, options: dict[str, Any]) -> None:
    """Prints one JSON line per request of a file, in its order; nothing if one of them is at fault."""
    asked = read_requests(path, k=k, check=run.rows, narrow=run.catalog.where)
    with Stages() as stages:
        for start in range(0, len(asked), BATCH):
            for found in run.recommend_batch(asked[start : start + BATCH], **options):
                say(json_line(found))
            stages("answering", min(start + BATCH, len(asked)), len(asked))


def json_line(found: Sequence[Recommendation]) -> str:
    """One list as the contract has it."""
    items = [{"item_id": item.item_id, "title": item.title, "score": item.score} for item in found]
    return json.dumps({"items": items}, ensure_ascii=False, allow_nan=False)


def show(found: Sequence[Recommendation]) -> None:
    """Prints one list as a table."""
    if not found:
        say("nothing may be recommended under these filters")
        return
    rows = [
        (str(place), str(item.item_id), item.title, f"{item.score:.4g}") for place, item in enumerate(found, start=1)
    ]
    table(("", "item_id", "title", "score"), rows, left=(1, 2))
