"""The speed table "growth" runs on its smallest sizes and says what it is to say."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import growth


def test_the_table_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = tmp_path / "growth.json"
    monkeypatch.setattr(sys, "argv", ["growth.py", "--smoke", "--json", str(result)])
    growth.main()
    record = json.loads(result.read_text())
    assert set(record["lines"]) == {"items", "entries", "history", "k"}
    for line in record["lines"].values():
        assert line["meaning"] and isinstance(line["slope"], float)
