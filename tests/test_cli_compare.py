"""`l2d compare` on a small shop: every decoder in one run, the contract's JSON, a report, peers kept in the run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from l2d.recommender import DECODERS
from shop import ok, refused

QUALITY = {"metrics", "title_match", "slices"}
SPEED = {"latency_ms", "requests_per_second", "model_calls"}


@pytest.fixture(scope="module")
def own(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that may be written to."""
    return Path(shutil.copytree(run, tmp_path_factory.mktemp("own") / "run"))


@pytest.fixture(scope="module")
def whole(own: Path) -> tuple[dict[str, Any], str, str]:
    """The record of a comparison with nothing chosen, its table and its report."""
    json_file, report = own.parent / "all.json", own.parent / "all.html"
    done = ok("compare", own, "--users", 6, "--no-timing", "--json", json_file, "--report", report)
    return json.loads(json_file.read_text()), done.out, report.read_text()


def test_nothing_chosen_is_every_decoder_by_its_kind(whole: tuple[dict[str, Any], str, str]) -> None:
    record, table, report = whole
    fitted = {name: kind for name, kind in DECODERS.items() if name not in ("auto", "recall")}  # not calibrated
    assert {name: row["kind"] for name, row in record["rows"].items()} == fitted
    assert record["split"] == "test"
    assert (record["sample_users"], record["against"]) == (6, "global")
    for name, row in record["rows"].items():
        assert row.keys() >= QUALITY | {"users", "memory_mib", "versus"}
        assert row["users"] == (6 if row["kind"] == "language" else record["users"])
        assert (row["versus"] == {}) == (name == "global")
        assert name in table
        assert name in report


def test_decoders_that_must_agree_do(whole: tuple[dict[str, Any], str, str]) -> None:
    """Drafts change no list of the beam's, and copying changes no text of grounding's."""
    rows = whole[0]["rows"]
    for faster, plain in (("small-drafts", "beam"), ("reference", "grounding")):
        assert rows[faster]["metrics"] == rows[plain]["metrics"]


def test_peers_stay_in_the_run(own: Path, whole: tuple[dict[str, Any], str, str], tmp_path: Path) -> None:
    kept = {path: path.stat().st_mtime_ns for path in (own / "peers").rglob("*.safetensors")}
    assert {path.parent.name for path in kept} == {"item-head", "item-head-tuned", "sasrec", "small-drafts"}
    again = ok("compare", own, "--baseline", "sasrec", "--users", 6, "--no-timing", "--json", tmp_path / "again.json")
    assert "training" not in again.err
    assert {path: path.stat().st_mtime_ns for path in (own / "peers").rglob("*.safetensors")} == kept
    row = json.loads((tmp_path / "again.json").read_text())["rows"]["sasrec"]
    assert row["metrics"] == whole[0]["rows"]["sasrec"]["metrics"]
    ok("doctor", own)


def test_timed_rows_say_where_their_time_goes(own: Path, tmp_path: Path) -> None:
    chosen = ("--decoder", "vote", "--decoder", "beam", "--baseline", "cooccurrence")
    ok("compare", own, *chosen, "--users", 5, "--json", tmp_path / "timed.json")
    rows = json.loads((tmp_path / "timed.json").read_text())["rows"]
    assert list(rows) == ["vote", "beam", "cooccurrence"]
    for row in rows.values():
        assert row.keys() >= QUALITY | SPEED
        phases = row["latency_ms"]
        assert phases.keys() == {"p50", "p95", "tokenise", "prefill", "decode", "search"}
        assert 0 < phases["p50"] <= phases["p95"]
    assert [rows[name]["model_calls"] for name in ("vote", "cooccurrence")] == [1, 0]
    assert rows["beam"]["model_calls"] > 1
    assert rows["vote"]["latency_ms"]["decode"] == 0 < rows["beam"]["latency_ms"]["decode"]
    assert rows["beam"]["versus"]["hr@10"].keys() >= {"difference", "low", "high", "p_holm"}


def test_what_cannot_be_compared_is_refused(own: Path) -> None:
    assert "unknown decoder" in refused("compare", own, "--decoder", "magic")
    assert "neither a number" in refused("compare", own, "--users", "0")
