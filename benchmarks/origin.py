"""Where a figure comes from: the data it was measured on, and what is written beside it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from l2d.backbone import machine
from l2d.run import versions

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def data_folder() -> Path:
    """$L2D_DATA, or ../shared/data beside the checkout."""
    return Path(os.environ.get("L2D_DATA") or ROOT.parent / "shared" / "data")


def origin() -> dict[str, Any]:
    """Commit, versions and machine. A checkout with changes of its own is marked by a plus."""
    return {"commit": _commit(), "versions": versions(), "machine": machine()}


def _commit() -> str | None:
    commit = _git("rev-parse", "HEAD")
    return commit and commit + ("+" if _git("status", "--porcelain", "--untracked-files=no", "src") else "")


def _git(*arguments: str) -> str | None:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False, cwd=ROOT)
    return done.stdout.strip() or None if done.returncode == 0 else None
