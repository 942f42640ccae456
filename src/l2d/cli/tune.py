"""`l2d tune` and `l2d adopt`: a backbone becomes a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from l2d.cli.display import Stages, say
from l2d.cli.options import DataFolder, Device, Dtype, MaxTitleTokens, NewRun, Overwrite, Revision
from l2d.errors import ConfigError


def add_to(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command("tune", epilog="Example: `l2d tune data/shop --backbone scratch:tiny --out runs/shop`")(tune)
    app.command(
        "adopt", epilog="Example: `l2d adopt data/shop --backbone ./my-llm --template my-prompt.toml --out runs/mine`"
    )(adopt)


def _positive(value: float | None) -> float | None:
    if value is not None and value <= 0:
        raise typer.BadParameter(f"{value} is not above 0")
    return value


def tune(
    data: DataFolder,
    backbone: Annotated[
        str, typer.Option(metavar="NAME", help="A hub name, a folder, or scratch:tiny, scratch:small, scratch:base.")
    ],
    out: NewRun,
    template: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="compact, instruct or a file. [default: compact for scratch, else instruct]"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest complete checkpoint.")] = False,
    overwrite: Overwrite = False,
    epochs: Annotated[int | None, typer.Option(min=1, metavar="N", help="Passes over the training samples.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(metavar="X", callback=_positive, help="Peak of the schedule.")
    ] = None,
    lora: Annotated[bool, typer.Option("--lora", help="Tune an adapter and leave the weights alone.")] = False,
    seed: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Of weights, order and dropout. [default: 0]")
    ] = None,
    max_title_tokens: MaxTitleTokens = 48,
    revision: Revision = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Tune a backbone to write the title of the next item."""
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite exclude each other", cure="resume the run, or start it anew")
    from l2d.recommender import Recommender

    with Stages() as stages:
        made = Recommender.tune(
            data,
            backbone=backbone,
            out=out,
            template=template,
            lora=lora,
            epochs=epochs,
            learning_rate=learning_rate,
            seed=seed,
            max_title_tokens=max_title_tokens,
            revision=revision,
            device=device,
            dtype=dtype,
            resume=resume,
            overwrite=overwrite,
            progress=stages,
            notice=stages.notice,
        )
    say(f"wrote {made.path}; next: l2d memory build {made.path}")


def adopt(
    data: DataFolder,
    backbone: Annotated[str, typer.Option(metavar="NAME", help="A hub name or a folder.")],
    template: Annotated[
        str, typer.Option(metavar="FILE", help="The prompt it was tuned on: compact, instruct or a file.")
    ],
    out: NewRun,
    adapter: Annotated[
        Path | None, typer.Option(metavar="PATH", help="A LoRA adapter, merged into the weights.")
    ] = None,
    overwrite: Overwrite = False,
    max_title_tokens: MaxTitleTokens = 48,
    revision: Revision = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Take a model that was tuned elsewhere, as it is, and say how likely it finds the true answers."""
    from l2d.recommender import Recommender

    with Stages() as stages:
        made = Recommender.adopt(
            data,
            backbone=backbone,
            template=template,
            out=out,
            adapter=adapter,
            max_title_tokens=max_title_tokens,
            revision=revision,
            device=device,
            dtype=dtype,
            overwrite=overwrite,
            progress=stages,
            notice=say,
        )
    say(f"wrote {made.path}; next: l2d memory build {made.path}")
