"""The commands in the order of the stages, and what becomes of their errors. Nothing heavy is imported for `--help`."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.core import TyperGroup
from typer.main import get_command

from l2d import __version__
from l2d.cli import (
    calibrate,
    compare,
    doctor,
    evaluate,
    items,
    keys,
    memory,
    prepare,
    quickstart,
    recommend,
    serve,
    tune,
)
from l2d.cli.display import complain, quieten
from l2d.errors import L2DError

BROKEN_PIPE, INTERRUPTED = 141, 130
"""What a shell reports for a program that ended by SIGPIPE or SIGINT."""

GO_ON = {
    "tune": "the same command with --resume goes on from the newest checkpoint",
    "memory": "the same command goes on from there",
    "compare": "the same command goes on: what is trained resumes, what is measured starts anew",
}

ORDER = (
    "prepare",
    "tune",
    "adopt",
    "memory",
    "calibrate",
    "items",
    "recommend",
    "serve",
    "keys",
    "evaluate",
    "compare",
    "quickstart",
    "doctor",
)
"""Of the stages; by itself the library would list the group `memory` behind all commands."""


class InOrder(TyperGroup):
    """Lists the commands in the order in which they are used."""

    def list_commands(self, ctx: object) -> list[str]:
        """Names of the commands."""
        return sorted(self.commands, key=ORDER.index)


app = typer.Typer(
    name="l2d",
    cls=InOrder,
    help="Latent-space decoding for LLM recommenders: one prefill, no decode step, no invalid item.",
    epilog="Example: `l2d quickstart`",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
)
for stage in (prepare, tune, memory, calibrate, items, recommend, serve, keys, evaluate, compare, quickstart, doctor):
    stage.add_to(app)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"l2d {__version__}")
        raise typer.Exit


@app.callback()
def before_every_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Latent-space decoding for LLM recommenders: one prefill, no decode step, no invalid item."""
    quieten()


def run(arguments: Sequence[str]) -> int:
    """Runs one command line.

    Args:
        arguments: what stands behind `l2d`.

    Returns:
        The exit code: 0, 2 when the input has to change, 1 when the fault is ours, 130 after Ctrl-C.
    """
    try:
        # Not app(): its own handling would print boxes of many lines, and turn Ctrl-C and a closed pipe into code 1.
        command = get_command(app)
        with command.make_context("l2d", list(arguments)) as context:
            command.invoke(context)
        sys.stdout.flush()
        return 0
    except KeyboardInterrupt:
        stage = next((word for word in arguments if not word.startswith("-")), "")
        complain(f"stopped; {GO_ON.get(stage, 'nothing half-written was left behind')}")
        return INTERRUPTED
    except SystemExit:  # rich raises it, and nobody else here does: whoever read our output has gone
        return BROKEN_PIPE
    except Exception as error:  # noqa: BLE001  # the last stop: what nobody foresaw gets one line, too
        return report(error)


def report(error: Exception) -> int:
    """Prints an error as one line and returns the exit code that it deserves."""
    if isinstance(error, typer.Exit):
        return error.exit_code
    if os.environ.get("L2D_DEBUG") == "1":
        traceback.print_exception(error)
    if isinstance(error, L2DError):
        complain(str(error))
        return error.exit_code
    if usage := _usage(error):
        complain(usage)
        return 2
    if isinstance(error, BrokenPipeError):
        # The reader has gone: Python must not find out a second time when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    if isinstance(error, OSError) and error.strerror and error.filename:
        complain(f"{error.filename}: {error.strerror}. Check the path, its permissions and the space on the disk")
        return 2
    complain(f"{type(error).__name__}: {error}. This is a bug of l2d: please report it with what L2D_DEBUG=1 adds")
    return 1


def _usage(error: Exception) -> str | None:
    """What a wrong option or argument is told, or None for another error."""
    message = getattr(error, "format_message", None)
    if message is None:
        return None
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":  # the message is the whole help text
        typer.echo(message())
        return f"{context.command_path} needs a command" if context else "a command is needed"
    return f"{message().rstrip('.')}. See `{context.command_path if context else 'l2d'} --help`"


def main() -> None:
    """Entry point of the `l2d` script."""
    sys.exit(run(sys.argv[1:]))
