"""The speed table "peak" runs on its smallest sizes and says what it is to say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "speed" / "peak.py"


def test_the_table_is_made(tmp_path: Path) -> None:
    result = tmp_path / "peak.json"
    command = [sys.executable, str(SCRIPT), "--smoke", "--json", str(result)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    record = json.loads(result.read_text())
    assert set(record["stages"]) == {"build", "load", "serve"}
    for stage in record["stages"].values():
        assert stage["1000"] > 0 and stage["5000"] > 0
