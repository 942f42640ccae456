"""`l2d memory`: build it, say what it holds, let it live."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from l2d.cli import forget, live
from l2d.cli.display import NO_FIGURE, Stages, say, table
from l2d.cli.options import Device, Engine, Overwrite, RunFolder

if TYPE_CHECKING:
    from l2d.memory import MemoryInfo

Through = Annotated[
    Literal["train", "valid", "all"],
    typer.Option("--through", help="The last split whose targets it holds; `evaluate` refuses a split that is in it."),
]
StoredType = Annotated[
    Literal["float16", "float32"], typer.Option("--memory-dtype", help="Type of the stored thoughts.")
]


def add_to(app: typer.Typer) -> None:
    """Adds the group."""
    group = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")
    group.command("build", epilog="Example: `l2d memory build runs/shop`")(build)
    group.command("info", epilog="Example: `l2d memory info runs/shop`")(info)
    live.add_to(group)
    forget.add_to(group)
    app.add_typer(
        group,
        name="memory",
        help="The thoughts of the training examples.",
        epilog="Example: `l2d memory build runs/shop`",
    )


def build(
    run: RunFolder,
    through: Through = "train",
    memory_dtype: StoredType = "float16",
    overwrite: Overwrite = False,
    device: Device = "auto",
    engine: Engine = "torch",
) -> None:
    """Think every training prompt and fit the decoders' constants; stopped half-way, the same command goes on."""
    from l2d.recommender import Recommender

    with Stages() as stages:
        opened = Recommender.load(run, device=device, engine=engine, notice=stages.notice)
        made = opened.build_memory(
            through=through, dtype=memory_dtype, overwrite=overwrite, progress=stages, notice=stages.notice
        )
    show(made)
    say(f"next: l2d recommend {run} --history TITLE, or l2d evaluate {run}")


def info(run: RunFolder, device: Device = "auto") -> None:
    """Say what a memory holds."""
    from l2d.recommender import Recommender

    show(Recommender.load(run, device=device, engine="torch").memory_info())


def show(found: MemoryInfo) -> None:
    """Prints a memory's figures."""
    rows = {
        "entries": f"{found.entries:,}",
        "items": f"{found.items:,}",
        "users": f"{found.users:,}",
        "width": f"{found.width:,}",
        "dtype": found.dtype,
        "size": f"{found.bytes / 1e6:,.1f} MB",
        "versions": f"{found.versions:,}",
        "through": found.through or NO_FIGURE,
        "engine": found.metadata.get("engine", "torch"),
        "first": _day(found.first),
        "last": _day(found.last),
        "finished": "yes" if found.finished else "no",
        "live": f"{found.interactions:,} interactions, {found.pending:,} entries in the journal",
        "last write": _day(found.last_write),
    }
    table(("memory", ""), rows.items(), left=(0, 1))


def _day(seconds: int | None) -> str:
    return NO_FIGURE if seconds is None else datetime.fromtimestamp(seconds, UTC).date().isoformat()
