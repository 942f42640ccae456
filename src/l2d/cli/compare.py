"""`l2d compare`: every decoder and what it must beat, in one run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from l2d.cli.display import NO_FIGURE, Stages, say, table
from l2d.cli.evaluate import SplitOption, judged, users_of
from l2d.cli.options import Device, Engine, ExcludeSeen, JsonFile, RunFolder

Names = list[str] | None


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    example = "Example: `l2d compare runs/shop --decoder vote --decoder beam --baseline sasrec --report shop.html`"
    app.command("compare", epilog=example)(compare)


def compare(
    run: RunFolder,
    decoder: Annotated[
        Names, typer.Option(metavar="NAME", help="A latent or language decoder; may be repeated.")
    ] = None,
    baseline: Annotated[
        Names, typer.Option(metavar="NAME", help="A trained peer or a count; may be repeated. Nothing chosen: all.")
    ] = None,
    split: SplitOption = "test",
    users: Annotated[
        str, typer.Option(metavar="N|all", help="A seeded sample of users for language decoders; the others get all.")
    ] = "1000",
    exclude_seen: ExcludeSeen = False,
    seeds: Annotated[int, typer.Option(min=1, metavar="N", help="Train peers with so many seeds.")] = 1,
    json: JsonFile = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with table and plots: one HTML file.")
    ] = None,
    timing: Annotated[bool, typer.Option("--timing/--no-timing", help="Time single requests, in turn.")] = True,
    seed: Annotated[
        int, typer.Option(min=0, metavar="N", help="Of the sample of users, the tests and what is trained.")
    ] = 0,
    device: Device = "auto",
    engine: Engine = "auto",
) -> None:
    """Compare decoders and their opponents: quality, latency by phase, throughput, and tests against the first row."""
    count = users_of(users)
    from l2d.artifacts import write_json, write_text
    from l2d.compare.report import render
    from l2d.recommender import Recommender

    with Stages() as stages:
        opened = Recommender.load(run, device=device, engine=engine, notice=stages.notice)
        found = opened.compare(
            [*(decoder or ()), *(baseline or ())] or None,
            split=split,
            users=count,
            exclude_seen=exclude_seen,
            seed=seed,
            seeds=seeds,
            timed=100 if timing else 0,
            progress=stages,
            notice=stages.notice,
        )
    record = found.to_json()
    if json is not None:
        write_json(json, record)
    if report is not None:
        write_text(report, render(record))
    comparison_table(record)
    asked = judged(found.users, found.split, found.exclude_seen)
    say(f"{asked}; language decoders on {found.sample_users:,} of them")
    say(f"± is half the 95 % bootstrap interval; p is that of HR@10 against {found.against}, corrected after Holm")


def comparison_table(record: Mapping[str, Any]) -> None:
    """Prints one line per row of a comparison's JSON record; what else is in it stands in the report."""
    against = record["against"]
    headings = ["decoder", "kind", "users", "HR@10", "NDCG@10", "HR@10 sample", f"vs {against}", "p"]
    headings += ["p50 ms", "calls", "requests/s"]
    table(headings, [[name, row["kind"], *_figures(row)] for name, row in record["rows"].items()], left=(0, 1))


def _figures(row: Mapping[str, Any]) -> list[str]:
    low, high = row["intervals"].get("hr@10", (0.0, 0.0))
    versus, single = row["versus"].get("hr@10", {}), row.get("latency_ms", {})
    return [
        f"{row['users']:,}",
        f"{_number(row['metrics'].get('hr@10'), '.4f')} ±{(high - low) / 2:.4f}",
        _number(row["metrics"].get("ndcg@10"), ".4f"),
        _number(row.get("sample", row)["metrics"].get("hr@10"), ".4f"),
        _number(versus.get("difference"), "+.4f"),
        _number(versus.get("p_holm"), ".3f"),
        _number(single.get("p50"), ".2f"),
        _number(row.get("model_calls"), ".1f"),
        _number(row.get("requests_per_second"), ",.0f"),
    ]


def _number(value: float | None, form: str) -> str:
    return NO_FIGURE if value is None else format(value, form)
