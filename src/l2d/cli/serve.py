"""`l2d serve`: runs answer over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from l2d.cli.display import remark, say
from l2d.cli.options import Device, Engine
from l2d.errors import ConfigError, MissingDependency

Milliseconds = Annotated[
    int,
    typer.Option("--deadline-ms", min=1, metavar="MS", help="Time of a request that names none; later is refused."),
]


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("serve", epilog="Example: `l2d serve runs/shop --port 8000`")(serve)


def needed() -> None:
    """Refuses where the packages of the extra are not installed.

    Raises:
        MissingDependency: one is not.
    """
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingDependency(
            "serving needs more packages", got=f"no {error.name}", cure="pip install 'l2d[serve]'"
        ) from error


def serve(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run directories; a user always gets the same one.")
    ],
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="0: a free one.")] = 8000,
    keys: Annotated[Path | None, typer.Option(metavar="FILE", help="Keys, made by `l2d keys add`.")] = None,
    decoder: Annotated[
        str | None, typer.Option(metavar="NAME", help="What answers. [default: auto, or vote before `calibrate`]")
    ] = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Take no writes; follow those of another process.")
    ] = False,
    language: Annotated[
        bool, typer.Option("--language/--no-language", help="Answer `beam`, too, one request at a time.")
    ] = True,
    deadline_ms: Milliseconds = 1000,
    queue: Annotated[int, typer.Option(min=1, metavar="N", help="Most requests that wait, per run.")] = 1024,
    max_batch: Annotated[int, typer.Option(min=1, metavar="N", help="Most requests thought together.")] = 64,
    max_wait_ms: Annotated[
        float, typer.Option(min=0, metavar="MS", help="How long a request waits for company.")
    ] = 2.0,
    drain_seconds: Annotated[
        float, typer.Option(min=0, metavar="S", help="Most time between SIGTERM and the end.")
    ] = 30.0,
    threads: Annotated[int | None, typer.Option(min=1, metavar="N", help="Torch's, per run.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Write no access log.")] = False,
    device: Device = "auto",
    engine: Engine = "auto",
) -> None:
    """Answer over HTTP: recommendations, live memory, and a page to look at; `/openapi.json` describes it."""
    needed()
    from l2d.serve.app import create_app
    from l2d.serve.keys import Keyring, read_keys
    from l2d.serve.metrics import Metrics
    from l2d.serve.opening import open_arms
    from l2d.serve.process import bound, run_server
    from l2d.serve.settings import Settings

    settings = Settings(
        host=host, port=port, decoder=decoder, read_only=read_only, language=language, deadline_ms=deadline_ms,
        queue=queue, max_batch=max_batch, max_wait_ms=max_wait_ms, drain_seconds=drain_seconds, threads=threads,
        quiet=quiet,
    )  # fmt: skip
    keyring = read_keys(keys) if keys is not None else Keyring()
    if not keyring and not settings.loopback:
        raise ConfigError(
            "others could reach this server without a key", got=f"--host {host}",
            cure="give --keys FILE (make it with `l2d keys add`), or listen at 127.0.0.1",
        )  # fmt: skip
    listening = bound(settings)
    metrics = Metrics()
    arms = open_arms(runs, settings, metrics, device=device, engine=engine, notice=remark)
    app = create_app(arms, settings, keyring, metrics)
    run_server(app, settings, listening, lambda address: say(f"l2d answers at {address}"))
