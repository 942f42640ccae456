"""The speed table "search" runs on its smallest sizes and says what it is to say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "speed" / "search.py"


def test_the_table_is_made(tmp_path: Path) -> None:
    result = tmp_path / "search.json"
    command = [sys.executable, str(SCRIPT), "--smoke", "--json", str(result)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    record = json.loads(result.read_text())
    (table,) = record["tables"].values()
    assert table["recall@10"]["ours, float16"] == table["recall@10"]["ours, float32"] == 1.0
    assert {"batch 1", "batch 32"} <= set(table)
