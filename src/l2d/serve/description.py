"""Writes the OpenAPI description: `python -m l2d.serve.description docs/openapi.json`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from l2d.serve.app import description


def text() -> str:
    """The description as it is kept."""
    return json.dumps(description(), indent=2, ensure_ascii=False, sort_keys=True) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(text(), encoding="utf-8")
