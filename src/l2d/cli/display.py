"""What people see: bars and notices on stderr, tables on stdout, errors as one line."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

    from l2d.recommender import Report, Row

SECONDS_BETWEEN_LINES = 5.0
"""How often a stage reports where there is no terminal to draw a bar on."""

PIPE_WIDTH = 140
"""Columns of a table that goes to a file or a pipe."""

NO_FIGURE = "-"


def quieten() -> None:
    """Keeps the libraries below from drawing bars and writing warnings of their own into ours.

    Effective before they are imported, since that is when they read these variables; L2D_DEBUG=1 leaves all as it is.
    """
    if os.environ.get("L2D_DEBUG") == "1":
        return
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for library in ("transformers", "huggingface_hub", "accelerate", "torch"):
        logging.getLogger(library).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")


def complain(line: str) -> None:
    """Prints one line about a failure on stderr, whatever line breaks its text has."""
    typer.echo(f"l2d: {' '.join(line.split())}", err=True)


def remark(line: str) -> None:
    """Prints one line for people on stderr."""
    typer.echo(line, err=True)


def say(line: str = "") -> None:
    """Prints one line of a result on stdout."""
    typer.echo(line)


class Stages:
    """Progress on stderr, one bar per stage; plain lines every few seconds where stderr is no terminal.

    An instance is what the library takes as `progress`, its method `notice` what it takes as `notice`.
    """

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self.console = Console(stderr=True, highlight=False)
        self.drawn = self.console.is_terminal
        text, count = TextColumn("{task.description:<12}"), MofNCompleteColumn()
        self.bars = Progress(text, BarColumn(), count, TimeElapsedColumn(), TimeRemainingColumn(), console=self.console)
        self.tasks: dict[str, TaskID] = {}
        self.said: dict[str, float] = {}
        self.finished: set[str] = set()

    def __enter__(self) -> Self:
        if self.drawn:
            self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.drawn:
            self.bars.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Moves a stage's bar."""
        if self.drawn:
            if stage not in self.tasks:
                self.tasks[stage] = self.bars.add_task(stage, total=total)
            self.bars.update(self.tasks[stage], completed=done, total=total)
            return
        now = time.monotonic()
        if stage in self.finished:
            return
        # The first line waits as well, so that a short stage says only that it is done.
        if done >= total or now - self.said.setdefault(stage, now) >= SECONDS_BETWEEN_LINES:
            self.said[stage] = now
            if done >= total:
                self.finished.add(stage)
            typer.echo(f"{stage}: {done:,} of {total:,}", err=True)

    def notice(self, line: str) -> None:
        """Prints a line for people above the bars."""
        self.console.print(line, markup=False, soft_wrap=True)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, left: Sequence[int] = (0,)) -> None:
    """Prints a table on stdout.

    Args:
        headings: one per column.
        rows: cells as text.
        left: columns that are set flush left; the others hold figures.
    """
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, heading in enumerate(headings):
        made.add_column(heading, justify="left" if place in left else "right", no_wrap=place not in left)
    for row in rows:
        made.add_row(*(_plain(cell) for cell in row))
    _stdout().print(made)


def _plain(cell: str) -> str:
    from rich.markup import escape

    return escape(cell)


def _stdout() -> Console:
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PIPE_WIDTH)


def report_table(report: Report) -> None:
    """Prints a report as one row per decoder; the speed-up column needs a timed beam."""
    beam = report.rows.get("beam")
    against = beam.ms_per_request if beam else None
    headings = ["decoder", "HR@10", "NDCG@10", "title HR@10", "later HR@10", "ms/request"]
    headings += ["speed-up"] if against else []
    table(headings, [[name, *_figures(row, against)] for name, row in report.rows.items()])


def _figures(row: Row, against: float | None) -> list[str]:
    judged, milliseconds = row.evaluation, row.ms_per_request
    low, high = judged.intervals.get("hr@10", (0.0, 0.0))
    hit = judged.metrics.get("hr@10")
    cells = [
        NO_FIGURE if hit is None else f"{hit:.4f} ±{(high - low) / 2:.4f}",
        _four(judged.metrics.get("ndcg@10")),
        _four(judged.title_match.get("hr@10")),
        _four(judged.slices.get("later", {}).get("hr@10")),
        NO_FIGURE if milliseconds is None else f"{milliseconds:.2f}",
    ]
    if against:
        cells.append(NO_FIGURE if not milliseconds else f"{against / milliseconds:.1f}x")
    return cells


def _four(value: float | None) -> str:
    return NO_FIGURE if value is None else f"{value:.4f}"
