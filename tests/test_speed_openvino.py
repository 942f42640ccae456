"""The table of the openvino engine runs and compares what it says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("openvino", reason="openvino is not installed: pip install 'l2d[openvino]'")


def test_the_smallest_sizes_give_every_ratio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import openvino_int8

    file = tmp_path / "found.json"
    monkeypatch.setattr(sys, "argv", ["openvino_int8.py", "--smoke", "--json", str(file)])
    openvino_int8.main()
    found = json.loads(file.read_text())["shapes"]["tiny"]
    (row,) = found["tokens"].values()
    assert row["single"]["inputs"] == 3
    assert set(row["single"]["over_bfloat16"]) == {"float32", "openvino"}
    assert row["many_over_bfloat16"]["bfloat16"] == 1
    assert 0 < found["bytes"] < 2 * found["parameters"], "about a byte per weight"
    assert "openvino over bfloat16" in capsys.readouterr().out
