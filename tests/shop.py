"""A small shop and the commands of the program, called in this process."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

from l2d import cli
from l2d.sources.demo import demo_world

ROOT = Path(__file__).resolve().parent.parent
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
