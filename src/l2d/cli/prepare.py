"""`l2d prepare`: a log becomes a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from l2d.cli.display import Stages, say, table
from l2d.cli.options import Overwrite

SplitOption = Annotated[
    Literal["temporal", "given", "leave-last-out"] | None,
    typer.Option(
        "--split", help="Cut by global time, as given, or each user's last items. [default: what the format allows]"
    ),
]
FORMAT = "auto, log, movielens, amazon-2014, amazon-2018, amazon-2023, d3, windows or sequences."


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        "prepare",
        epilog="Example: `l2d prepare interactions.csv --items items.csv --format log --out data/shop --k-core 5`",
    )(prepare)


def _column(role: str) -> Any:
    return typer.Option(
        f"--{role}-column", metavar="NAME", help=f"The column of the {role}, where it is not recognised."
    )


def prepare(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="A file or folder to read.")],
    out: Annotated[Path, typer.Option("--out", metavar="DATA", help="The folder to write.")],
    items: Annotated[Path | None, typer.Option(metavar="FILE", help="The file with the titles.")] = None,
    format: Annotated[str, typer.Option(metavar="FORMAT", help=FORMAT)] = "auto",
    split: SplitOption = None,
    user_column: Annotated[str | None, _column("user")] = None,
    item_column: Annotated[str | None, _column("item")] = None,
    time_column: Annotated[str | None, _column("time")] = None,
    title_column: Annotated[str | None, _column("title")] = None,
    k_core: Annotated[int, typer.Option(min=1, metavar="N", help="Keep users and items with N interactions each.")] = 1,
    max_history: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Most items of a history. [default: 10; given windows as they are]"),
    ] = None,
    max_title_words: Annotated[int | None, typer.Option(min=1, metavar="N", help="Cut titles after N words.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Read a log, clean and split it, and say what was read, dropped and why."""
    from l2d.artifacts import atomic_folder, refuse_existing
    from l2d.sources import prepare as read

    refuse_existing(out, overwrite=overwrite)
    with Stages() as stages:
        dataset = read(
            source,
            items=items,
            format=format,
            split=split,
            user_column=user_column,
            item_column=item_column,
            time_column=time_column,
            title_column=title_column,
            k_core=k_core,
            max_history=max_history,
            max_title_words=max_title_words,
            progress=lambda done, total: stages("reading", done, total),
        )
        with atomic_folder(out, overwrite=overwrite) as folder:
            dataset.save(folder)
        for warning in dataset.info["warnings"]:
            stages.notice(f"warning: {warning}")
    show(dataset.info)
    say(f"wrote {out}; next: l2d tune {out} --backbone scratch:small --out RUN")


def show(info: dict[str, Any]) -> None:
    """Prints the report of a preparation."""
    rows = [(note["action"], f"{note['count']:,}", note["what"], note["why"]) for note in info["report"]]
    table(("", "count", "what", "why"), rows, left=(0, 2, 3))
    say(f"format {info.get('format', 'unknown')}, split {info['split']}")
