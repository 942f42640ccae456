"""Options and arguments that several commands have, so that one word means one thing everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RunFolder = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run directory, made by `tune`, `adopt` or `quickstart`.")
]
DataFolder = Annotated[Path, typer.Argument(metavar="DATA", help="A folder written by `prepare`.")]
NewRun = Annotated[Path, typer.Option("--out", metavar="RUN", help="The run directory to make.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Delete what is there and start anew.")]
Device = Annotated[str, typer.Option(metavar="NAME", help="`auto` (the first GPU, else the CPU), `cpu`, `cuda`, ...")]
Engine = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="NAME",
        help="What thinks: `torch`, `openvino` (int8; makes an export in the run), `vllm` or `vllm=http://HOST:PORT`; "
        "`auto` takes an export that is there if it is faster, else torch.",
    ),
]
Approximate = Annotated[
    bool,
    typer.Option(
        "--approximate",
        help="Let local and vote find neighbours by a FAISS index where the memory has a million entries or more.",
    ),
]
Dtype = Annotated[
    str,
    typer.Option(
        "--dtype", metavar="NAME", help="Compute in `float32` or `bfloat16`; `auto` takes the faster safe one."
    ),
]
Revision = Annotated[str | None, typer.Option(metavar="COMMIT", help="Commit, branch or tag of the hub repository.")]
MaxTitleTokens = Annotated[int, typer.Option(min=1, metavar="N", help="Cut longer titles to so many tokens.")]
Seed = Annotated[int, typer.Option(min=0, metavar="N", help="Of the sample of users and the intervals.")]
ExcludeSeen = Annotated[bool, typer.Option("--exclude-seen", help="Leave the history's own items out.")]
JsonFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures as JSON, too.")]
Decoders = (
    "`global`, `local`, `vote`, `auto`, `recall` or an opponent by its name in `l2d compare`: `beam`, `sasrec`, ..."
)
"""What `--decoder` accepts, for help texts."""
