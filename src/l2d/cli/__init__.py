"""The command line: `app` holds the commands, `main` runs one and turns whatever goes wrong into one line."""

from __future__ import annotations

from l2d.cli.commands import app, main, run

__all__ = ["app", "main", "run"]
