"""The speed table "growth" runs on its smallest sizes and says what it is to say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "speed" / "growth.py"


def test_the_table_is_made(tmp_path: Path) -> None:
    result = tmp_path / "growth.json"
    command = [sys.executable, str(SCRIPT), "--smoke", "--json", str(result)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    record = json.loads(result.read_text())
    assert set(record["lines"]) == {"items", "entries", "history", "k"}
    for line in record["lines"].values():
        assert line["meaning"] and isinstance(line["slope"], float)
