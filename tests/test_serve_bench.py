"""The load generator against servers whose behaviour is known, and every measurement of the server in small."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kill
import overload
import serve_tables
import soak
import throughput
from client import Connection, encoded
from hosted import free_port
from load import Call, Found, Loading, arrivals, read_phases

CALLS = [Call("a", "POST", "/a", {"wait": 0}), Call("b", "GET", "/b")]


class Slow:
    """A server that answers a request after the seconds that it asks for, and 503 to every GET."""

    def __init__(self) -> None:
        self.port, self.seen, self.started = free_port(), 0, threading.Event()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        assert self.started.wait(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(asyncio.start_server(self._talk, "127.0.0.1", self.port))
        self.started.set()
        self.loop.run_forever()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await _head(reader):
            self.seen += 1
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            if head.startswith(b"GET"):
                writer.write(b"HTTP/1.1 503 Busy\r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n")
                continue
            await asyncio.sleep(json.loads(body)["wait"])
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n")
            await writer.drain()
            writer.write(b"{}")  # apart from its head, as answers may come


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


@pytest.fixture
def slow() -> Iterator[Slow]:
    server = Slow()
    yield server
    server.loop.call_soon_threadsafe(server.loop.stop)


def test_a_closed_load_sends_what_the_plan_says_in_its_order(slow: Slow) -> None:
    found = Loading(CALLS, slow.port, concurrency=1, count=5).found()
    assert found.place.tolist() == [0, 1, 0, 1, 0] and slow.seen == 5
    assert found.status.tolist() == [200, 503, 200, 503, 200]
    assert found.of("a").good.all() and not found.of("b").good.any()
    assert found.summary()["status"] == {"200": 3, "503": 2}


def test_an_open_load_counts_from_when_a_request_should_have_been_sent(slow: Slow) -> None:
    """One connection and a server that takes .3 s: the tenth request waits for nine others, and that counts."""
    calls = [Call("a", "POST", "/a", {"wait": 0.3})]
    found = Loading(calls, slow.port, rates="100:0.1", connections=1).found()
    order = np.argsort(found.sent)
    waited = (found.sent - found.intended)[order]
    count = len(waited)
    assert count == len(arrivals([(100, 0.1)], 0)) > 3
    assert (np.diff(found.sent[order]) > 0.29).all(), "one at a time"
    assert waited[-1] > 0.29 * (count - 1) - 0.1
    np.testing.assert_allclose(found.latency_ms, (found.ended - found.intended) * 1000)
    assert found.latency_ms.max() > 1000 * 0.29 * count - 100, "the waiting is in the latency"


def test_arrivals_are_a_poisson_process_in_phases() -> None:
    times = arrivals(read_phases("200:50,20:50"), 3)
    assert (np.diff(times) >= 0).all()
    first, second = times[times < 50], times[times >= 50]
    assert abs(len(first) - 10_000) < 400 and abs(len(second) - 1_000) < 130
    gaps = np.diff(first)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05), "as of an exponential distribution"


def test_a_load_survives_a_server_that_is_not_there() -> None:
    found = Loading(CALLS, free_port(), rates="50:0.2").found()
    assert len(found.status) and not found.status.any() and found.summary()["latency_ms"] == {}


def test_a_connection_reads_answers_in_parts_and_says_when_to_come_back(slow: Slow) -> None:
    async def talk() -> list[Any]:
        connection = await Connection.to("127.0.0.1", slow.port)
        first = await connection.ask(encoded("POST", "/", {"wait": 0}))
        second = await connection.ask(encoded("GET", "/"))
        waiting = connection.ask(encoded("POST", "/", {"wait": 60}))
        connection.close()
        return [first, second, await waiting, await connection.ask(b"")]

    first, second, broken, closed = asyncio.run(talk())
    assert (first.status, first.json(), first.retry_after) == (200, {}, None)
    assert (second.status, second.retry_after) == (503, 2)
    assert broken.status == closed.status == 0


def rows(*them: tuple[float, float, int]) -> Found:
    """What a load met: intended, ended, status."""
    intended, ended, status = (np.array(column) for column in zip(*them, strict=True))
    place = np.zeros(len(them), dtype=np.int64)
    return Found(place, intended, intended, ended, status, np.array(["recommend"]), 10.0, 0.1)


def test_recovery_is_judged_by_hand() -> None:
    before = rows((0, 0.010, 200), (1, 1.010, 200), (2, 2.012, 200))
    ill = [(10.1, 10.4, 200), (10.2, 10.3, 503), (10.6, 10.9, 200)]
    well = [(11.1, 11.11, 200), (11.7, 11.712, 200)]
    assert overload.recovered(before, rows(*ill, *well), 10.0) == 1.0
    assert overload.recovered(before, rows(*well), 11.0) == 0.0
    assert overload.recovered(before, rows(*well, *((at + 3, end + 3, code) for at, end, code in ill)), 11.0) is None
    assert overload.in_time(rows((0, 0.4, 200), (0, 0.6, 200), (0, 0.9, 503)), 500) == 0.5


def test_refusals_are_counted_from_the_servers_histogram() -> None:
    def sample(end: str, reason: str) -> str:
        return f'l2d_refusal_seconds_bucket{{le="{end}",reason="{reason}",run="shop"}}'

    before = {sample("0.05", "late"): 5.0, sample("+Inf", "late"): 5.0}
    after = {sample("0.01", "late"): 10.0, sample("0.05", "late"): 24.0, sample("+Inf", "late"): 25.0}
    after |= {sample("0.01", "full"): 0.0, sample("0.05", "full"): 0.0, sample("+Inf", "full"): 0.0}
    after |= {sample("0.01", "input"): 900.0, sample("+Inf", "input"): 900.0}
    found = overload.refused_within(before, after)
    assert found == {"count": 20.0, "p95_ms": 50.0, "within_50_ms": 0.95}
    assert overload.refused_within({}, {})["count"] == 0


def test_what_is_lost_twice_or_left_behind_is_found(run: Path, tmp_path: Path) -> None:
    """A run that lives, and clients that were told something else than what is in it."""
    from l2d import Recommender
    from l2d.recommender import Interaction
    from runs import copied

    mine = copied(run, tmp_path / "run")
    with Recommender.load(mine, writer=True, verify=False) as living:
        item = str(living.catalog.item_ids[0])
        living.add_interactions([Interaction("1", item, 7), Interaction("new", item, 8), Interaction("new", item, 9)])
    first, second, third = ("1", item, 7), ("new", item, 8), ("new", item, 9)
    assert kill.compared(mine, kill.Told({first, second}, {third})) == []
    lost = ("1", item, 99)
    assert kill.compared(mine, kill.Told({first, second, third, lost})) == [
        f"{lost} was acknowledged and is there 0 times"
    ]
    assert kill.compared(mine, kill.Told({second, third})) == [f"{first} is there and was not sent"]
    left = kill.compared(mine, kill.Told({first}, deleted={"new"}))
    assert sum("was deleted and has a history of 2" in fault for fault in left) == 1


LONG = [pytest.param(script, marks=pytest.mark.long) for script in (throughput, overload)]


@pytest.mark.parametrize("script", [soak, *LONG])
def test_each_measurement_in_small(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("L2D_SERVE_RUNS", str(tmp_path.parent / "serve-runs"))
    script.main(["--smoke", "--json", str(tmp_path / "found.json")])
    record = json.loads((tmp_path / "found.json").read_text())
    assert {"commit", "versions", "machine", "shape"} <= record.keys()
    if script is throughput:
        for name in ("single_over_offline", "batch_over_offline_in_64s", "batch_over_offline"):
            assert 0 < record[name]["low"] <= record[name]["median"] <= record[name]["high"]
        assert record["client_alone_per_second"] > max(record["per_second"].values())
    if script is overload:
        assert record["phases"]["overload"]["requests"] > record["phases"]["before"]["requests"]
        assert 0 <= record["accepted_in_time"] <= 1 and record["refused"]["count"] >= 0
    if script is soak:
        assert record["requests"] == record["recommend"]["requests"] + record["write"]["requests"]
        assert record["exit_code"] == 0 and record["entries_added"] > 0


def test_tables_say_so_where_nothing_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_tables, "read", lambda name: None)
    assert {block() for block in serve_tables.BLOCKS.values()} == {serve_tables.NOT_YET}
