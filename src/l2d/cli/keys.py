"""`l2d keys add`: keys for `l2d serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from l2d.cli.display import remark, say
from l2d.cli.serve import needed

EXAMPLE = "Example: `l2d keys add keys.toml --name shop --scope read --scope write`"


def add_to(app: typer.Typer) -> None:
    """Adds the group."""
    group = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")
    group.command("add", epilog=EXAMPLE)(add)
    app.add_typer(group, name="keys", help="Keys for `l2d serve`.", epilog=EXAMPLE)


def add(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file of digests; made where it is not there.")],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Whose key it is; the log shows it.")],
    scope: Annotated[
        list[str], typer.Option("--scope", metavar="SCOPE", help="`read`, `write` or `audit`; may be repeated.")
    ],
) -> None:
    """Make a key, print it this once, and keep its digest."""
    needed()
    from l2d.serve.keys import add_key

    key = add_key(file, name, scope)
    remark(f"{file} has its digest; the key itself is shown this once")
    say(key)
