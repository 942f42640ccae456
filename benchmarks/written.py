"""Committed result files, and Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from origin import RESULTS

Record = dict[str, Any]


def read(name: str) -> Record | None:
    """A result file, if it is there."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    lines = [list(headings), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
