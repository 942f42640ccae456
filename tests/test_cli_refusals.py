"""The command line misused, or a run damaged: one line, exit code 2, nothing left behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from shop import CATALOG, flipped, ok, refused


def everything_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_a_refusal_is_one_line_with_code_2(shop: Path, run: Path, tmp_path: Path) -> None:
    data = shop / "data"
    here = ("--out", tmp_path / "new")
    title = CATALOG.titles[0]
    assert "nowhere" in refused("prepare", tmp_path / "nowhere", *here)
    assert "stranger" in refused("prepare", shop / "interactions.csv", "--user-column", "stranger", *here)
    assert "parquetry" in refused("prepare", shop / "interactions.csv", "--format", "parquetry", *here)
    assert "--overwrite" in refused("prepare", shop / "interactions.csv", "--items", shop / "items.csv", "--out", data)
    assert "nowhere" in refused("tune", tmp_path / "nowhere", "--backbone", "scratch:tiny", *here)
    assert "--resume" in refused("tune", data, "--backbone", "scratch:tiny", "--resume", "--overwrite", *here)
    assert "--epochs" in refused("tune", data, "--backbone", "scratch:tiny", "--epochs", 0, *here)
    assert "already exists" in refused("tune", data, "--backbone", "scratch:tiny", "--out", run)
    assert "already exists" in refused("quickstart", "--out", run)
    assert "not a run" in refused("memory", "build", tmp_path)
    assert "not a run" in refused("memory", "info", tmp_path)
    assert "not a run" in refused("recommend", tmp_path, "--history", title)
    assert "not a run" in refused("evaluate", tmp_path)
    assert "not a run" in refused("doctor", tmp_path)
    assert "--history" in refused("recommend", run)
    assert "--history" in refused("recommend", run, "--history", title, "--user", 3)
    assert "-k" in refused("recommend", run, "--history", title, "-k", 0)
    assert "nonsense" in refused("recommend", run, "--history", title, "--decoder", "nonsense")
    assert "temperature" in refused("recommend", run, "--history", title, "--temperature", 0)
    assert "unknown user" in refused("recommend", run, "--user", "nobody")
    assert "nonsense" in refused("evaluate", run, "--decoder", "nonsense")
    assert "--users" in refused("evaluate", run, "--users", "some")
    assert "--split" in refused("evaluate", run, "--split", "train")
    assert "--nonsense" in refused("evaluate", run, "--nonsense")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--backbone", "scratch:tiny", "--lora"), "--lora"),
        (("--backbone", "scratch:huge"), "scratch:huge"),
        (("--backbone", "./nowhere"), "./nowhere"),
        (("--backbone", "scratch:tiny", "--template", "absent.toml"), "absent.toml"),
    ],
)
def test_a_refused_tune_leaves_no_run_behind(shop: Path, tmp_path: Path, options: tuple[str, ...], told: str) -> None:
    assert told in refused("tune", shop / "data", *options, "--out", tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_an_unknown_title_gets_the_nearest_one_suggested(run: Path) -> None:
    title = max(CATALOG.titles, key=len)
    line = refused("recommend", run, "--history", title[:-3] + "?")
    assert repr(title)[1:-1] in line


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ('{"history": ["No Such Book at All"]}', "unknown item"),
        ('{"history": [TITLE], "exclude": ["No Such Book at All"]}', "unknown item"),
        ('{"history": [TITLE]', "not JSON"),
        ("[TITLE]", "no history"),
        ('{"k": 3}', "no history"),
        ('{"history": TITLE}', "history is no list"),
        ('{"history": null}', "history is no list"),
        ('{"history": [TITLE], "allow": [1.5]}', "allow is no list"),
        ('{"history": [TITLE], "k": 0}', "k is no whole number"),
        ('{"history": [TITLE], "k": true}', "k is no whole number"),
        ('{"history": [TITLE], "decoder": "vote"}', "unknown key"),
    ],
)
def test_a_bad_request_is_named_with_file_and_line_and_nothing_is_answered(
    run: Path, tmp_path: Path, bad: str, told: str
) -> None:
    file = tmp_path / "requests.jsonl"
    good = json.dumps({"history": [CATALOG.titles[0]]})
    file.write_text(f"{good}\n\n{bad.replace('TITLE', json.dumps(CATALOG.titles[0]))}\n{good}\n")
    line = refused("recommend", run, "--requests", file)
    assert f"{file}:3: " in line
    assert told in line


def test_requests_that_cannot_be_read_are_refused(run: Path, tmp_path: Path) -> None:
    assert "absent.jsonl" in refused("recommend", run, "--requests", tmp_path / "absent.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    assert "no requests" in refused("recommend", run, "--requests", tmp_path / "empty.jsonl")
    (tmp_path / "latin.jsonl").write_bytes('{"history": ["Café"]}'.encode("latin-1"))
    assert "latin.jsonl:1: " in refused("recommend", run, "--requests", tmp_path / "latin.jsonl")


def test_a_flipped_bit_in_any_file_of_a_run_is_found(run: Path) -> None:
    files = sorted(path for path in run.rglob("*") if path.is_file() and path.name != ".writer")  # an empty lock
    assert {"manifest.json", "prompt.json", "decoder.json"} <= {path.name for path in files}
    answer = ok("recommend", run, "--user", 17, "--json").out
    for file in files:
        with flipped(file):
            if file.name == "latest_version_hint.json":  # a shortcut of Lance, which the memory does not go by
                assert ok("recommend", run, "--user", 17, "--json").out == answer
                continue
            line = refused("recommend", run, "--user", 17)
            assert refused("doctor", run) == line
        assert file.name in line or file.relative_to(run).parts[0] in line
    ok("doctor", run)


def test_damaged_data_is_refused_and_tunes_nothing(shop: Path, tmp_path: Path) -> None:
    with flipped(shop / "data" / "interactions.parquet"):
        line = refused("tune", shop / "data", "--backbone", "scratch:tiny", "--out", tmp_path / "run")
    assert "interactions.parquet" in line
    assert not list(tmp_path.iterdir())


def test_a_bad_log_leaves_nothing_behind(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("user_id,item_id,timestamp,title\n1,2,later than now,Title\n")
    assert f"{log}:2: " in refused("prepare", log, "--out", tmp_path / "data")
    assert everything_below(tmp_path) == {"log.csv"}


def test_evaluate_refuses_a_memory_that_holds_its_targets(run: Path, shop: Path, tmp_path: Path) -> None:
    knowing = tmp_path / "knowing"
    shutil.copytree(run, knowing)
    ok("memory", "build", knowing, "--through", "valid", "--overwrite")
    assert "valid" in refused("evaluate", knowing, "--decoder", "global", "--json", tmp_path / "results.json")
    assert not (tmp_path / "results.json").exists()
    ok("evaluate", knowing, "--decoder", "global", "--split", "test", "--no-timing")
