"""The speed table "writes" runs on its smallest sizes and says what it is to say."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import writes


def test_the_table_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = tmp_path / "writes.json"
    monkeypatch.setattr(sys, "argv", ["writes.py", "--smoke", "--json", str(result)])
    writes.main()
    (row,) = json.loads(result.read_text())["rows"]
    assert set(row["over_thought"]) == {"write", "aggregate"}
    assert row["first_write_over_thought"]["median"] > 0
