"""The command line as other tools call it: one run made by its commands, then used, misused and damaged."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from l2d import cli
from l2d.sources.demo import demo_world

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = (
    ["prepare"],
    ["tune"],
    ["adopt"],
    ["memory", "build"],
    ["memory", "info"],
    ["recommend"],
    ["evaluate"],
    ["quickstart"],
    ["doctor"],
)
CATALOG, LOG = demo_world(users=120, items=60)


class Done(NamedTuple):
    """What a command left."""

    code: int
    out: str
    err: str


def l2d(*arguments: object) -> Done:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = cli.run([str(argument) for argument in arguments])
    return Done(code, out.getvalue(), err.getvalue())


def ok(*arguments: object) -> Done:
    done = l2d(*arguments)
    assert done.code == 0, done.err
    return done


def refused(*arguments: object) -> str:
    """The one line that a refusal consists of."""
    done = l2d(*arguments)
    complaints = [line for line in done.err.splitlines() if line.startswith("l2d: ")]
    assert (done.code, len(complaints)) == (2, 1), done
    assert "Traceback" not in done.err
    assert done.err.splitlines()[-1] == complaints[0]
    assert done.out == "" or arguments[0] == "doctor", "a doctor describes the machine, whatever the run is like"
    return complaints[0]


def write_shop(folder: Path) -> None:
    """The demo log as a shop would export it."""
    with (folder / "interactions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["user_id", "item_id", "timestamp"])
        for user, row, time in zip(LOG.user, LOG.row, LOG.timestamp, strict=True):
            writer.writerow([int(user) + 1, CATALOG.item_ids[row], int(time)])
    with (folder / "items.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["item_id", "title"])
        writer.writerows(zip(CATALOG.item_ids, CATALOG.titles, strict=True))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    write_shop(folder)
    ok("prepare", folder / "interactions.csv", "--items", folder / "items.csv", "--out", folder / "data")
    return folder


@pytest.fixture(scope="module")
def run(shop: Path) -> Path:
    out = shop / "run"
    ok("tune", shop / "data", "--backbone", "scratch:tiny", "--epochs", 1, "--out", out)
    ok("memory", "build", out)
    return out


def listed(line: str) -> list[dict[str, object]]:
    record = json.loads(line)
    assert list(record) == ["items"]
    return record["items"]


def everything_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


@contextmanager
def flipped(file: Path) -> Iterator[None]:
    """One bit in the middle of a file is another one meanwhile."""
    whole = file.read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0x10
    file.write_bytes(damaged)
    try:
        yield
    finally:
        file.write_bytes(whole)


# What the commands print and write


def test_prepare_says_what_was_read_and_kept(shop: Path) -> None:
    out = ok(
        "prepare", shop / "interactions.csv", "--items", shop / "items.csv", "--out", shop / "data-5", "--k-core", 5
    ).out
    lines = [line.split() for line in out.splitlines()]
    assert ["read", f"{len(LOG):,}", "records", "interactions.csv"] in lines
    assert ["read", "60", "items", "items.csv"] in lines
    assert any(line[:1] == ["dropped"] and "5-core" in line for line in lines)
    record = json.loads((shop / "data-5" / "dataset.json").read_text())
    for note in record["info"]["report"]:
        assert any(f"{note['count']:,}" in line and note["action"] in line for line in lines)


def test_recommend_prints_a_list_for_a_history_and_for_a_user(run: Path) -> None:
    out = ok("recommend", run, "--history", CATALOG.titles[3], "--history", CATALOG.item_ids[5], "-k", 4).out
    ids = [line.split()[1] for line in out.splitlines() if line.split()[:1] and line.split()[0].isdigit()]
    assert len(ids) == 4
    assert set(ids) <= set(CATALOG.item_ids)
    found = listed(ok("recommend", run, "--user", 17, "--json").out)
    bought = [CATALOG.item_ids[row] for row in LOG.row[LOG.user == 16]]
    same = listed(ok("recommend", run, *(word for item in bought for word in ("--history", item)), "--json").out)
    assert found == same
    assert len(found) == 10


def test_json_has_the_contracts_keys_and_types(run: Path) -> None:
    items = listed(ok("recommend", run, "--history", CATALOG.titles[3], "-k", 7, "--json").out)
    assert len(items) == 7
    for item in items:
        assert list(item) == ["item_id", "title", "score"]
        assert isinstance(item["item_id"], int)  # the ids of this shop are integers
        assert item["title"] == CATALOG.titles[CATALOG.row(item["item_id"])]
    scores = [item["score"] for item in items]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("decoder", ["global", "local", "vote", "beam", "popularity", "transitions"])
def test_a_file_of_requests_gets_the_lists_of_single_calls(run: Path, tmp_path: Path, decoder: str) -> None:
    generator = np.random.default_rng(5)
    asked = [
        {"history": [CATALOG.titles[row] for row in generator.permutation(60)[: int(length)]], "k": int(length)}
        for length in (1, 3, 6)
    ]
    asked[1]["exclude"] = [int(CATALOG.item_ids[row]) for row in range(0, 60, 2)]
    asked[2]["allow"] = list(CATALOG.titles[:9])
    file = tmp_path / "requests.jsonl"
    file.write_text("\n\n".join(json.dumps(request) for request in asked))
    lines = ok("recommend", run, "--requests", file, "--decoder", decoder).out.splitlines()
    assert len(lines) == len(asked)
    for request, line in zip(asked, lines, strict=True):
        words = [word for item in request["history"] for word in ("--history", item)]
        words += [
            word for name in ("exclude", "allow") for item in request.get(name, ()) for word in (f"--{name}", item)
        ]
        single = listed(ok("recommend", run, *words, "-k", request["k"], "--decoder", decoder, "--json").out)
        batch = listed(line)
        assert [item["item_id"] for item in batch] == [item["item_id"] for item in single]
        assert [item["score"] for item in batch] == pytest.approx([item["score"] for item in single], rel=1e-4)
        assert not {item["item_id"] for item in batch} & set(request.get("exclude", ()))
        assert {item["title"] for item in batch} <= set(request.get("allow", CATALOG.titles))


def test_seen_items_are_left_out_when_asked(run: Path) -> None:
    every = listed(ok("recommend", run, "--user", 17, "-k", 60, "--decoder", "global", "--json").out)
    unseen = listed(ok("recommend", run, "--user", 17, "-k", 60, "--decoder", "global", "--exclude-seen", "--json").out)
    bought = {int(CATALOG.item_ids[row]) for row in LOG.row[LOG.user == 16]}
    assert bought & {item["item_id"] for item in every}
    assert [item["item_id"] for item in every if item["item_id"] not in bought] == [item["item_id"] for item in unseen]


def test_neighbours_and_temperature_reach_the_decoder(run: Path) -> None:
    words = ("recommend", run, "--history", CATALOG.titles[3], "--json")
    fitted = listed(ok(*words).out)
    assert listed(ok(*words, "--neighbours", 3).out) != fitted
    assert listed(ok(*words, "--temperature", 0.001).out) != fitted


def test_evaluate_writes_the_contracts_json_and_prints_its_figures(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "figures" / "results.json"
    names = ("global", "vote", "beam", "cooccurrence")
    words = [word for name in names for word in ("--decoder", name)]
    out = ok("evaluate", run, *words, "--split", "test", "--users", 20, "--json", file).out
    record = json.loads(file.read_text())
    assert (record["split"], record["users"]) == ("test", 20)
    assert list(record["decoders"]) == list(names)
    for name, figures in record["decoders"].items():
        assert {"metrics", "title_match", "slices", "ms_per_request"} <= set(figures)
        assert figures["ms_per_request"] > 0
        assert {"same_time", "later"} <= set(figures["slices"])
        assert "users" in figures["slices"]["later"]
        row = next(line for line in out.splitlines() if line.split()[:1] == [name])
        assert f"{figures['metrics']['hr@10']:.4f}" == row.split()[1]
        assert f"{figures['metrics']['ndcg@10']:.4f}" == row.split()[3]
    assert "1.0x" in next(line for line in out.splitlines() if line.split()[:1] == ["beam"])
    assert "20 test users" in out


def test_evaluate_without_timing_or_beam_has_neither_figure(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    out = ok("evaluate", run, "--decoder", "popularity", "--no-timing", "--json", file).out
    assert "ms_per_request" not in json.loads(file.read_text())["decoders"]["popularity"]
    assert "speed-up" not in out
    assert json.loads(file.read_text())["split"] == "valid"


def test_memory_info_counts_the_training_examples(run: Path, shop: Path) -> None:
    from l2d.interactions import Dataset

    lines = [line.split() for line in ok("memory", "info", run).out.splitlines()]
    assert ["entries", f"{len(Dataset.load(shop / 'data').splits.train):,}"] in lines
    assert ["through", "train"] in lines
    assert ["finished", "yes"] in lines


def test_doctor_looks_at_the_machine_and_at_a_run(run: Path) -> None:
    import torch

    machine = ok("doctor").out
    assert torch.__version__ in machine
    whole = ok("doctor", run).out
    assert "entries match" in whole
    assert "pack probe" in whole


def test_progress_and_notices_stay_off_stdout(run: Path) -> None:
    done = ok("evaluate", run, "--decoder", "global", "--users", 5, "--no-timing")
    assert "thinking: 5 of 5" in done.err
    assert "thinking" not in done.out


# What is refused


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
    files = sorted(path for path in run.rglob("*") if path.is_file())
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


# What goes wrong on our side, and what a shell sees


def test_an_unforeseen_error_is_ours_and_one_line(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from l2d.recommender import Recommender

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("one\ntwo")

    monkeypatch.setattr(Recommender, "load", broken)
    done = l2d("memory", "info", run)
    assert done.code == 1
    assert len(done.err.splitlines()) == 1
    assert "bug" in done.err
    assert "one two" in done.err
    monkeypatch.setenv("L2D_DEBUG", "1")
    assert "Traceback" in l2d("memory", "info", run).err


@pytest.mark.parametrize(("stage", "cure"), [("tune", "--resume"), ("memory", "same command"), ("evaluate", "nothing")])
def test_ctrl_c_says_how_to_go_on(shop: Path, monkeypatch: pytest.MonkeyPatch, stage: str, cure: str) -> None:
    from l2d.recommender import Recommender

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for name in ("load", "tune"):
        monkeypatch.setattr(Recommender, name, interrupted)
    words = {
        "tune": ("tune", shop, "--backbone", "scratch:tiny", "--out", shop / "x"),
        "memory": ("memory", "build", shop),
        "evaluate": ("evaluate", shop),
    }
    done = l2d(*words[stage])
    assert done.code == 130
    assert cure in done.err.splitlines()[-1]
    assert "Traceback" not in done.err


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -m l2d --help | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment(), check=False)
    assert done.stderr == ""
    assert done.stdout.strip() in ("0", str(128 + signal.SIGPIPE))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_has_an_example_that_begins_with_the_command(command: list[str]) -> None:
    text = " ".join(ok(*command, "--help").out.split())
    assert f"Example: l2d {' '.join(command)}" in text


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from l2d import cli; cli.run(['tune', '--help']);"
        "print([name for name in ('torch', 'transformers', 'numpy', 'polars', 'lance') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=False)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_the_reference_is_what_the_program_says(tmp_path: Path) -> None:
    made = tmp_path / "cli.md"
    options = f"--name l2d --title 'The command line' --output {shlex.quote(str(made))}"
    command = shlex.split(f"{shlex.quote(sys.executable)} -m typer l2d.cli utils docs {options}")
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert made.read_text() == (ROOT / "docs" / "cli.md").read_text(), "docs/cli.md is out of date: run `make docs`"


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "src")}
