"""The speed table "finding" runs on its smallest sizes and says what it is to say."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import finding


def test_the_table_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = tmp_path / "finding.json"
    monkeypatch.setattr(sys, "argv", ["finding.py", "--smoke", "--json", str(result)])
    finding.main()
    (table,) = json.loads(result.read_text())["tables"].values()
    assert {"letters", "words", "parts", "misspelt", "filter", "seconds to make"} == set(table)
    assert table["misspelt"]["over_loop"].keys() == {"find", "difflib"}
    assert table["filter"]["over_loop"].keys() == {"filter", "same filter"}
