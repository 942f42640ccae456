"""What the README says works: its bash and python blocks are run in their order, in a folder with a small shop."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from l2d import cli
from l2d.sources.demo import demo_world

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
README = (ROOT / "README.md").read_text(encoding="utf-8")
RUN = [(language, text) for language, text in BLOCK.findall(README) if language in ("bash", "python")]


def write_shop(folder: Path) -> None:
    """The three files that the README takes as given."""
    catalog, log = demo_world(users=120, items=60)
    with (folder / "interactions.csv").open("w", newline="", encoding="utf-8") as file:
        lines = zip(log.user.tolist(), log.row.tolist(), log.timestamp.tolist(), strict=True)
        writer = csv.writer(file)
        writer.writerow(["user", "item", "time"])
        writer.writerows((user + 1, catalog.item_ids[row], time) for user, row, time in lines)
    with (folder / "items.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("item", "title"), *zip(catalog.item_ids, catalog.titles, strict=True)])
    popular = [catalog.titles[row] for row in sorted(set(log.row[:20].tolist()))]
    requests = [{"history": popular[:3]}, {"history": popular[3:4], "k": 3, "exclude": popular[:1]}]
    (folder / "requests.jsonl").write_text("".join(json.dumps(request) + "\n" for request in requests))


def commands(block: str) -> list[list[str]]:
    """The commands of a bash block, continuation lines joined."""
    return [shlex.split(line) for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def test_the_blocks_run_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_shop(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert {language for language, _ in RUN} == {"bash", "python"}
    for language, block in RUN:
        if language == "python":
            capsys.readouterr()
            exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
            assert len(capsys.readouterr().out.splitlines()) == 5
            continue
        for program, *arguments in commands(block):
            assert program == "l2d"
            assert cli.run(arguments) == 0, (arguments, capsys.readouterr().err)
    results = json.loads((tmp_path / "results.json").read_text())
    assert set(results["decoders"]) == {"global", "vote", "cooccurrence"}


def test_every_command_in_the_readme_has_options_that_exist() -> None:
    """Blocks that are not run (they need a download, or titles of another shop) are at least spelled right."""
    from typer.main import get_command

    shown = [line for _, block in BLOCK.findall(README) for line in commands(block) if line[:1] == ["l2d"]]
    assert len(shown) > len([line for _, block in RUN for line in commands(block) if line[:1] == ["l2d"]])
    for _, *words in shown:
        command = get_command(cli.app)
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        command.make_context("l2d", words)


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([\w./-]+)\)", README))))
def test_links_lead_to_files(link: str) -> None:
    assert (ROOT / link).exists()


def test_the_tables_are_what_the_results_say() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "tables.py"), "--check"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
