"""The scenes of `faults`: each breaks one thing under a real server and states what must hold."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from client import Connection, encoded
from hosted import ONE_THREAD, Hosted, NotReady
from origin import ROOT
from runs import Material, copied, prepared

K = 10
PATIENT = 30_000
"""Milliseconds for a request here: what is asked is whether it is answered."""

ALIEN = ("Traceback", "RuntimeError", "panicked")
"""What no operator should read."""


class Skipped(Exception):
    """A scene that cannot be set on this machine."""


class Scene:
    """What a scene works with.

    Args:
        options: of the command line.
        folder: for its files.
    """

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.source = prepared(options.shape, options.run)
        self.material = Material.of(self.source)
        self.held: list[str] = []
        self.failed: list[str] = []
        self.mounted: list[Path] = []
        self.clock = int(time.time())

    def must(self, holds: object, what: str) -> None:
        """Notes a statement and whether it holds."""
        (self.held if holds else self.failed).append(what)

    def run(self) -> Path:
        """A run of its own."""
        return copied(self.source, self.folder / "run")

    def serve(self, run: Path, *options: str, **more: Any) -> Hosted:
        """A server, ready."""
        return Hosted(run, options=[*self.options.serve, *options], **more)

    def recommended(self, server: Hosted) -> bool:
        """Whether a list comes."""
        body = {"history": self.material.histories[0], "k": K, "deadline_ms": PATIENT}
        status, told = server.ask("POST", "/v1/recommend", body)
        return status == 200 and len(told["items"]) == K

    def interaction(self, place: int) -> dict[str, Any]:
        """An interaction that is like no other."""
        self.clock += 1
        users, items = self.material.users, self.material.items
        named = {"user_id": str(users[place % len(users)]), "item_id": items[place % len(items)]}
        return {**named, "timestamp": self.clock}

    def write(self, server: Hosted, count: int = 1) -> tuple[int, Any]:
        """Writes so many interactions in one request."""
        made = [self.interaction(place) for place in range(count)]
        return server.ask("POST", "/v1/interactions", {"interactions": made})

    def disk(self, kib: int) -> Path:
        """A file system of so many KiB.

        Raises:
            Skipped: this process may not mount one.
        """
        place = self.folder / f"disk-{len(self.mounted)}"
        place.mkdir()
        mount("-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(place))
        self.mounted.append(place)
        return place

    def close(self) -> None:
        """Takes small disks down."""
        for place in self.mounted:
            subprocess.run(["umount", "--lazy", str(place)], check=True)


def mount(*arguments: str) -> None:
    """Mounts.

    Raises:
        Skipped: this process may not.
    """
    if shutil.which("mount") is None:
        raise Skipped("no mount here")
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Skipped(f"cannot mount here: {done.stderr.strip()}")


def kib_of(folder: Path) -> int:
    """What a folder takes on a disk."""
    return sum(-(-place.stat().st_size // 4096) * 4 + 4 for place in folder.rglob("*"))


def entries_of(server: Hosted) -> int:
    """Entries of the memory that is served."""
    return int(server.ask("GET", "/v1/memory")[1]["runs"][0]["entries"])


def refusal(start: Callable[[], Hosted]) -> str | None:
    """What a server says that does not start; None where it does."""
    try:
        with start():
            return None
    except NotReady as error:
        return str(error)


def plain(told: str) -> bool:
    """Whether it is a message for people."""
    return "l2d:" in told and not any(word in told for word in ALIEN)


def disk_full(scene: Scene) -> None:
    """Writes fill the disk, lists go on, and when there is room again so do writes; nothing acknowledged is lost."""
    whole = kib_of(scene.source)
    place = scene.disk(whole + 1500)
    run = copied(scene.source, place / "run")
    with scene.serve(run) as server:
        before, acknowledged, refused = entries_of(server), 0, []
        filler = place / "filler"
        filler.write_bytes(b"\0" * max(0, shutil.disk_usage(place).free - (700 << 10)))
        for _ in range(400):
            status, told = scene.write(server, 5)
            acknowledged += told["entries"] if status == 200 else 0
            if status != 200:
                refused.append((status, told))
                if len(refused) == 3:
                    break
        scene.must(
            refused and all(status == 503 for status, _ in refused), f"a full disk is told by 503: {refused[:1]}"
        )
        scene.must("disk" in str(refused), "the answer says that it is the disk")
        scene.must(scene.recommended(server), "lists are made while the disk is full")
        scene.must(entries_of(server) == before + acknowledged, "what was refused is not in the memory")
        filler.unlink()
        status, told = scene.write(server)
        scene.must(status == 200, f"writes are taken when there is room again: {status} {told}")
        acknowledged += told.get("entries", 0)
        server.kill()
    with scene.serve(run) as server:
        found = entries_of(server)
        scene.must(found == before + acknowledged, f"{before} + {acknowledged} acknowledged entries are there: {found}")


def read_only_disk(scene: Scene) -> None:
    """A run on a disk that takes no writes is served with --read-only, and refused clearly without."""
    place = scene.disk(kib_of(scene.source) + 4000)
    run = copied(scene.source, place / "run")
    mount("-o", "remount,ro", str(place))
    told = refusal(lambda: scene.serve(run))
    scene.must(told is not None and plain(told), f"without --read-only it is refused clearly: {told}")
    with scene.serve(run, "--read-only") as server:
        scene.must(scene.recommended(server), "with --read-only lists are made")
        status, answer = scene.write(server)
        scene.must(status in (403, 405, 409, 503), f"with --read-only writes are refused: {status} {answer}")
        scene.must(server.stop() == 0, "it ends with 0")


DAMAGED = (
    "manifest.json", "prompt.json", "decoder.json", "calibration.npz", "backbone/model.safetensors",
    "backbone/tokenizer.json", "data/catalog.parquet", "data/interactions.parquet", "memory.lance/ledger.json",
    "memory.lance/data/*.lance", "live.sqlite",
)  # fmt: skip


def damaged_files(scene: Scene) -> None:
    """A file of which a bit is flipped, a half or all is missing: a clear refusal, never other lists."""
    run = scene.run()
    with scene.serve(run) as server:
        scene.write(server, 5)
        asked = {"history": scene.material.histories[0], "k": K}
        right = server.ask("POST", "/v1/recommend", asked)[1]["items"]
        server.stop()
    for pattern in DAMAGED:
        for file in sorted(run.glob(pattern))[:1]:
            whole = file.read_bytes()
            for how, damaged in damages(whole):
                file.write_bytes(damaged) if damaged is not None else file.unlink()
                told, listed = None, right
                try:
                    with scene.serve(run) as server:
                        listed = server.ask("POST", "/v1/recommend", asked)[1].get("items")
                except NotReady as error:
                    told = str(error)
                what = f"{file.relative_to(run)} {how}"
                if told is not None:
                    scene.must(plain(told), f"{what}: refused clearly: {told[-300:]}")
                else:
                    scene.must(listed == right, f"{what}: served the right lists")
                file.write_bytes(whole)
    told = refusal(lambda: scene.serve(run))
    scene.must(told is None, f"with all files restored it serves: {told}")


def damages(whole: bytes) -> Iterator[tuple[str, bytes | None]]:
    """What may happen to a file."""
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0x10
    yield "with a flipped bit", bytes(flipped)
    yield "cut in half", whole[: len(whole) // 2]
    yield "empty", b""
    yield "gone", None


CLOCK = """
import os, time
_time, _time_ns = time.time, time.time_ns
def _jump():
    try:
        with open(os.environ["L2D_TEST_CLOCK"]) as file:
            return float(file.read() or 0)
    except OSError:
        return 0.0
time.time = lambda: _time() + _jump()
time.time_ns = lambda: _time_ns() + int(_jump() * 1e9)
"""


def clock_jumps(scene: Scene) -> None:
    """The wall clock jumps by a day, a year, and back: deadlines and writes do not mind."""
    patch, jump = scene.folder / "patch", scene.folder / "jump"
    patch.mkdir()
    (patch / "sitecustomize.py").write_text(CLOCK)
    jump.write_text("0")
    paths = os.pathsep.join((str(patch), str(ROOT / "src")))
    run = scene.run()
    environment = {"PYTHONPATH": paths, "L2D_TEST_CLOCK": str(jump)}
    with scene.serve(run, env=environment) as server:
        before, written = entries_of(server), 0
        user, items = str(scene.material.users[0]), scene.material.items
        for place, seconds in enumerate((0, 86_400, -86_400, 365 * 86_400, -30 * 365 * 86_400, 0)):
            jump.write_text(str(seconds))
            scene.must(scene.recommended(server), f"lists are made after a jump by {seconds} s")
            one = {"user_id": user, "item_id": items[place % len(items)]}
            status, told = server.ask("POST", "/v1/interactions", {"interactions": [one]})
            scene.must(status == 200 and told["added"] == 1, f"writes are taken then: {status} {told}")
            written += 1
        scene.must(entries_of(server) == before + written, "each of them is an entry")
        scene.must(server.stop() == 0, "it ends with 0")


def two_writers(scene: Scene) -> None:
    """A second writer is refused by name of the first; a read-only server follows what the first one writes."""
    run = scene.run()
    with scene.serve(run) as first:
        told = refusal(lambda: scene.serve(run, ready=60))
        scene.must(told is not None and plain(told), f"the second is refused clearly: {told}")
        scene.must(told is not None and str(first.process.pid) in told, "by the process id of the first")
        log = scene.folder / "log.csv"
        one = scene.interaction(0)
        log.write_text(f"user_id,item_id,timestamp\n{one['user_id']},{one['item_id']},{one['timestamp']}\n")
        done = command("memory", "add", str(run), str(log))
        scene.must(
            done.returncode == 2 and plain(done.stderr) and str(first.process.pid) in done.stderr,
            f"so is `memory add`: {done.stderr[-300:]}",
        )
        scene.must(scene.recommended(first) and scene.write(first)[0] == 200, "the first goes on")
        with scene.serve(run, "--read-only") as reader:
            before = entries_of(reader)
            scene.must(before == entries_of(first), "a read-only server has the first one's entries")
            _, written = scene.write(first, 3)
            until = time.monotonic() + 15
            while (seen := entries_of(reader)) < before + written["entries"] and time.monotonic() < until:
                time.sleep(0.1)
            scene.must(seen == before + written["entries"], f"it follows the first one's writes: {before} {seen}")
    with scene.serve(run) as server:
        scene.must(scene.write(server)[0] == 200, "when the first has ended, another one may write")


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of the program."""
    environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(
        [sys.executable, "-m", "l2d", *arguments], capture_output=True, text=True, check=False, env=environment
    )


STALLED = 300


def stalled_clients(scene: Scene) -> None:
    """Hundreds of clients that send half a head, half a body or read nothing take nothing from the others."""
    with scene.serve(scene.run()) as server:
        body = encoded("POST", "/v1/recommend", {"history": scene.material.histories[0], "k": 1000})
        with contextlib.ExitStack() as stack:
            for place in range(STALLED):
                there = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=5))
                ends = (20, body.find(b"\r\n\r\n") + 14, len(body))[place % 3]
                there.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                there.sendall(body[:ends])
            scene.must(all(scene.recommended(server) for _ in range(50)), "others are answered meanwhile")
            scene.must(scene.write(server)[0] == 200, "writes are taken meanwhile")
            scene.must(waited_out(server), "they are hung up on in the end")
        scene.must(server.stop() == 0, "it ends with 0")


def waited_out(server: Hosted, most: float = 60.0) -> bool:
    """Whether the server closes all connections whose request never became whole."""
    until = time.monotonic() + most
    path = Path(f"/proc/{server.process.pid}/fd")
    while time.monotonic() < until:
        open_now = sum(os.readlink(one).startswith("socket:") for one in path.iterdir() if one.is_symlink())
        if open_now < STALLED / 2:
            return True
        time.sleep(0.5)
    return False


def vanished_clients(scene: Scene) -> None:
    """Clients that hang up before their answer cost no list to others; what they wrote is there once or not at all."""
    with scene.serve(scene.run()) as server:
        before = entries_of(server)
        sent = asyncio.run(_vanish(scene, server))
        scene.must(scene.recommended(server), "others are answered")
        first = sent[0]
        again = server.ask("POST", "/v1/interactions", {"interactions": sent})[1]
        scene.must(again["added"] + again["known"] == len(sent), f"sent again, each is added or known: {again}")
        scene.must(entries_of(server) == before + len(sent), f"each is an entry once: {first}")
        failed = sum(value for name, value in server.metrics().items() if 'status="500"' in name)
        scene.must(not failed, "none of it is a failure of the server")
        scene.must(server.stop() == 0, "it ends with 0")


async def _vanish(scene: Scene, server: Hosted) -> list[dict[str, Any]]:
    sent = []
    for place in range(200):
        connection = await Connection.to("127.0.0.1", server.port)
        if place % 2:
            body = {"history": scene.material.histories[place % len(scene.material.histories)], "k": K}
            connection.ask(encoded("POST", "/v1/recommend", body))
        else:
            sent.append(scene.interaction(place))
            connection.ask(encoded("POST", "/v1/interactions", {"interactions": [sent[-1]]}))
        await asyncio.sleep(0.002 * (place % 5))
        connection.close()
    return sent


def stopped_under_load(scene: Scene) -> None:
    """SIGTERM: what was accepted is answered, what comes later is not, and the server ends by itself with 0."""
    run = scene.run()
    with scene.serve(run) as server:
        statuses, written = asyncio.run(_drained(scene, server))
        scene.must(server.process.wait(60) == 0, "it ends with 0")
        scene.must(set(statuses) <= {200, 503}, f"all that was under way is answered: {sorted(set(statuses))}")
        scene.must(200 in statuses, "some of it with a list")
    with scene.serve(run) as server:
        again = server.ask("POST", "/v1/interactions", {"interactions": written})[1]
        scene.must(again["known"] == len(written), f"acknowledged writes are there: {again}")


async def _drained(scene: Scene, server: Hosted) -> tuple[list[int], list[dict[str, Any]]]:
    connections = [await Connection.to("127.0.0.1", server.port) for _ in range(40)]
    written = [scene.interaction(place) for place in range(8)]
    asked = []
    for place, connection in enumerate(connections):
        if place < len(written):
            asked.append(connection.ask(encoded("POST", "/v1/interactions", {"interactions": [written[place]]})))
        else:
            body = {"history": scene.material.histories[place % len(scene.material.histories)], "k": K}
            asked.append(connection.ask(encoded("POST", "/v1/recommend", body)))
    await asyncio.sleep(0.02)
    server.process.send_signal(signal.SIGTERM)
    answers = await asyncio.gather(*asked)
    kept = [one for one, answer in zip(written, answers, strict=False) if answer.status == 200]
    return [answer.status for answer in answers], kept


SCENES: dict[str, Callable[[Scene], None]] = {
    scene.__name__: scene
    for scene in (
        disk_full, read_only_disk, damaged_files, clock_jumps, two_writers, stalled_clients, vanished_clients,
        stopped_under_load,
    )
}  # fmt: skip
