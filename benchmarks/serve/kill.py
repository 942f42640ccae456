"""Is every acknowledged write there exactly once, whenever the server is killed?

    python benchmarks/serve/kill.py --shape 5m --run runs/amazon-cds --kills 50

Clients ask for lists, write interactions and delete users, all at once, until SIGKILL; now and then it comes while the
server is still starting. Each start is as any other: nothing is repaired by hand. Then the run is opened by a reader
and compared with what clients were told: an acknowledged interaction stands exactly once in its user's history and has
exactly one entry, a user whose deletion was acknowledged has left nothing, and a write without an answer is there once
or not at all. Such writes are sent again, as a client would.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from client import Connection, encoded
from hosted import ONE_THREAD, Hosted, NotReady
from load import quantiles
from origin import ROOT
from runs import Material, arguments, copied, keep, prepared

WRITERS, READERS = 4, 2
EARLY = 0.2
"""Share of the kills that come while the server starts."""

MANY = 0.1
"""Share of the writes that hold hundreds of interactions."""

Interaction = tuple[str, str, int]
"""User, item and time; no two writes of a measurement have the same time."""


@dataclass
class Told:
    """What the clients know.

    Args:
        written: interactions that were acknowledged.
        unsure: that were sent and not answered.
        deleted: users whose deletion was acknowledged.
        leaving: whose deletion was sent and not answered; nothing is claimed of them.
        counts: answers by kind and status.
    """

    written: set[Interaction] = field(default_factory=set)
    unsure: set[Interaction] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    leaving: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)


class Clients:
    """Clients of a server that may end at any moment.

    Args:
        material: of the run.
        told: what they know.
        seed: of what they draw.
    """

    def __init__(self, material: Material, told: Told, *, seed: int) -> None:
        self.material, self.told = material, told
        self.generator = np.random.default_rng(seed)
        self.times = itertools.count(int(time.time()))
        self.names = itertools.count()

    async def work(self, server: Hosted, seconds: float) -> None:
        """Asks, writes and deletes, then kills the server."""
        asyncio.get_running_loop().call_later(seconds, server.process.kill)
        workers = [self._write(server) for _ in range(WRITERS)] + [self._read(server) for _ in range(READERS)]
        await asyncio.gather(*workers, self._delete(server, float(self.generator.uniform(0, seconds))))

    async def again(self, server: Hosted) -> None:
        """Sends what was not answered once more."""
        connection = await Connection.to("127.0.0.1", server.port)
        for unsure in sorted(self.told.unsure):
            await self._send(connection, [unsure])
        for user in sorted(self.told.leaving):
            await self._forget(connection, user)
        connection.close()

    async def _write(self, server: Hosted) -> None:
        connection = await Connection.to("127.0.0.1", server.port)
        while connection.open:
            gone = self.told.deleted | self.told.leaving
            fresh = self.generator.random() < 0.1
            user = f"new-{next(self.names)}" if fresh else str(self._drawn(self.material.users))
            if user in gone:
                continue
            many = self.generator.random() < MANY  # these fill the journal, so that kills meet moves into Lance
            count = int(self.generator.integers(100, 300) if many else self.generator.integers(1, 6))
            made = [(user, str(self._drawn(self.material.items)), next(self.times)) for _ in range(count)]
            await self._send(connection, made)

    async def _send(self, connection: Connection, made: Sequence[Interaction]) -> None:
        self.told.unsure.update(made)
        body = {"interactions": [{"user_id": u, "item_id": i, "timestamp": t} for u, i, t in made]}
        answer = await connection.ask(encoded("POST", "/v1/interactions", body))
        self.told.counts[f"write {answer.status}"] += 1
        if answer.status == 200:
            self.told.unsure.difference_update(made)
            self.told.written.update(made)

    async def _read(self, server: Hosted) -> None:
        connection = await Connection.to("127.0.0.1", server.port)
        while connection.open:
            body = {"history": self._drawn(self.material.histories), "k": 10}
            answer = await connection.ask(encoded("POST", "/v1/recommend", body))
            self.told.counts[f"recommend {answer.status}"] += 1

    async def _delete(self, server: Hosted, after: float) -> None:
        await asyncio.sleep(after)
        connection = await Connection.to("127.0.0.1", server.port)
        user = str(self._drawn(self.material.users))
        if any(user == one for one, _, _ in self.told.unsure):
            return  # a write of this user is under way: nobody could say which of the two came first
        self.told.leaving.add(user)
        await self._forget(connection, user)

    async def _forget(self, connection: Connection, user: str) -> None:
        answer = await connection.ask(encoded("DELETE", f"/v1/users/{user}"))
        self.told.counts[f"delete {answer.status}"] += 1
        if answer.status in (200, 404):
            self.told.leaving.discard(user)
            self.told.deleted.add(user)
            self.told.written = {one for one in self.told.written if one[0] != user}

    def _drawn(self, among: Sequence[Any]) -> Any:
        return among[int(self.generator.integers(len(among)))]


def main(given_arguments: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__, shape="5m")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=3.0, help="of load before a kill, at most")
    options = parser.parse_args(given_arguments)
    if options.smoke:
        options.shape, options.kills, options.seconds = "tiny", 2, 1.0
    keep(f"kill-{options.shape}", measured(options), options)


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """The record."""
    source = prepared(options.shape, options.run)
    told = Told()
    clients = Clients(Material.of(source), told, seed=0)
    generator = np.random.default_rng(1)
    ready: list[float] = []
    early, faults = 0, []
    with tempfile.TemporaryDirectory(prefix="l2d-kill-") as folder:
        run = copied(source, Path(folder) / "run")
        for place in range(options.kills):
            if ready and generator.random() < EARLY:
                early += 1
                _killed_while_starting(run, float(generator.uniform(0, np.median(ready))), options)
            with Hosted(run, options=options.serve) as server:
                ready.append(server.ready_seconds)
                asyncio.run(clients.again(server))
                faults += [f"kill {place}: {fault}" for fault in compared(run, told)]
                asyncio.run(clients.work(server, float(generator.uniform(0.1, options.seconds))))
                server.kill()
        with Hosted(run, options=options.serve) as server:
            asyncio.run(clients.again(server))
            code = server.stop()
        faults += [f"at the end: {fault}" for fault in compared(run, told)]
    for fault in faults:
        print(fault, flush=True)
    record = {
        "shape": options.shape, "kills": options.kills, "kills_while_starting": early,
        "interactions_acknowledged": len(told.written), "users_deleted": len(told.deleted),
        "answers": dict(sorted(told.counts.items())), "faults": faults, "exit_code": code,
        "ready_seconds": quantiles(np.array(ready)),
    }  # fmt: skip
    print(
        f"{options.shape}: {options.kills + early} kills, {len(told.written)} interactions and {len(told.deleted)} "
        f"deletions acknowledged, {len(faults)} faults",
        flush=True,
    )
    return record


def _killed_while_starting(run: Path, seconds: float, options: argparse.Namespace) -> None:
    try:
        with Hosted(run, options=options.serve, ready=seconds) as server:
            server.kill()
    except NotReady:
        pass  # it was killed, having had no time to get ready


def compared(run: Path, told: Told) -> list[str]:
    """What a reader of the run finds that clients were told otherwise."""
    users = {user for user, _, _ in told.written | told.unsure} | told.deleted
    done = subprocess.run(
        [sys.executable, __file__, "look", str(run)], input=json.dumps(sorted(users)), capture_output=True, text=True,
        check=False, env={**os.environ, **ONE_THREAD, "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    if done.returncode:
        return [f"the run cannot be read: {done.stderr[-2000:]}"]
    there = json.loads(done.stdout)
    rows, histories = [(user, item, time) for user, item, time, _ in there["journal"]], there["histories"]
    journal, entries = Counter(rows), Counter(map(tuple, there["entries"]))
    due = Counter((user, item, time) for user, item, time, entry in there["journal"] if entry)
    faults = [] if there["integrity"] == "ok" else [f"the journal is damaged: {there['integrity']}"]
    faults += [f"{there['twice']} samples have two entries"] if there["twice"] else []
    faults += [f"{one} was acknowledged and is there {journal[one]} times" for one in told.written if journal[one] != 1]
    faults += [f"{one} is there {count} times" for one, count in journal.items() if count > 1]
    strange = journal.keys() - told.written - told.unsure
    faults += [f"{one} is there and was not sent" for one in strange if one[0] not in told.leaving]
    faults += [
        f"{one} has {entries[one]} entries and should have {due[one]}" for one in (due - entries) + (entries - due)
    ]
    for user, items in histories.items():
        live = [item for one, item, _ in rows if one == user]
        if user in told.deleted and items:
            faults.append(f"{user} was deleted and has a history of {len(items)}")
        elif live and items[-len(live) :] != live:
            faults.append(f"{user} has a history that does not end with what was written")
    return faults


def look(path: str) -> None:
    """Prints what is in a run that is served: its journal, read without our code, and what a reader makes of it."""
    from l2d import Recommender
    from l2d.errors import DataError

    journal = sqlite3.connect(f"file:{path}/live.sqlite?mode=ro", uri=True)
    (integrity,) = journal.execute("PRAGMA integrity_check").fetchone()
    rows = journal.execute("SELECT user_id, item_id, timestamp, entry FROM interactions ORDER BY seq").fetchall()
    run = Recommender.load(path, verify=False)
    entries, base = run.entries, run.live.base
    live = np.flatnonzero(entries.sample >= base).tolist()
    histories = {}
    for user in json.load(sys.stdin):
        try:
            histories[user] = [str(item) for item in run.user_history(user)]
        except DataError:
            histories[user] = []
    found = {
        "integrity": integrity, "journal": rows, "histories": histories,
        "twice": len(entries.sample) - len(np.unique(entries.sample)),
        "entries": [
            (entries.user_ids[entries.user[at]], run.catalog.item_ids[entries.row[at]], int(entries.timestamp[at]))
            for at in live
        ],
    }  # fmt: skip
    print(json.dumps(found))


if __name__ == "__main__":
    if sys.argv[1:2] == ["look"]:
        look(sys.argv[2])
    else:
        main()
