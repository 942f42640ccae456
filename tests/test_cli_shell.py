"""What goes wrong on our side, and what a shell sees."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shop import ROOT, l2d, ok

COMMANDS = (
    ["prepare"],
    ["tune"],
    ["adopt"],
    ["memory", "build"],
    ["memory", "info"],
    ["recommend"],
    ["evaluate"],
    ["compare"],
    ["quickstart"],
    ["doctor"],
)


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
