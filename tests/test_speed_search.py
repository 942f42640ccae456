"""The speed table "search" runs on its smallest sizes and says what it is to say."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import search


def test_the_table_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = tmp_path / "search.json"
    monkeypatch.setattr(sys, "argv", ["search.py", "--smoke", "--json", str(result)])
    search.main()
    record = json.loads(result.read_text())
    (table,) = record["tables"].values()
    assert table["recall@10"]["ours, float16"] == table["recall@10"]["ours, float32"] == 1.0
    assert {"batch 1", "batch 32"} <= set(table)
