"""Writes through HTTP: what the library then knows, what the next request sees, and who answers meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from l2d import Recommender
from l2d.artifacts import WriterLock
from l2d.errors import ArtifactBusy, InputError
from l2d.memory import LiveMemory
from l2d.recommender import Interaction
from l2d.serve.arm import Arm
from l2d.serve.errors import Refused
from l2d.serve.metrics import Metrics
from l2d.serve.settings import Settings
from serving import HERE, app_of, opened
from shop import CATALOG, ok

LATER = 1_790_000_000


@pytest.fixture
def place(run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(run, tmp_path / "shop", ignore=shutil.ignore_patterns("live.sqlite*", ".writer"))


@pytest.fixture
def client(place: Path) -> Iterator[TestClient]:
    with TestClient(app_of({"shop": opened(place, writer=True)}), base_url=HERE) as asking:
        yield asking


def bought(user: str, *rows: int, at: int = LATER) -> dict[str, Any]:
    items = [CATALOG.item_ids[row] for row in rows]
    return {
        "interactions": [
            {"user_id": user, "item_id": int(item), "timestamp": at + place} for place, item in enumerate(items)
        ]
    }


def memory(client: TestClient) -> dict[str, Any]:
    return client.get("/v1/memory").json()["runs"][0]


def test_a_write_is_durable_and_part_of_the_next_request(client: TestClient, place: Path) -> None:
    before = memory(client)
    told = client.post("/v1/interactions", json=bought("newcomer", 3, 5, 7)).json()
    assert (told["added"], told["known"], told["entries"]) == (3, 0, 2)
    assert told["runs"] == [{key: told[key] for key in ("run", "memory_version", "added", "known", "entries")}]
    after = memory(client)
    assert after["entries"] == before["entries"] + 2
    assert after["memory_version"] == told["memory_version"] != before["memory_version"]
    assert after["last_writes"][0]["kind"] == "interactions"
    answer = client.post("/v1/recommend", json={"user": "newcomer", "decoder": "vote"}).json()
    assert answer["memory_version"] == told["memory_version"]
    reader = opened(place)
    history = [CATALOG.item_ids[row] for row in (3, 5, 7)]
    assert [str(item) for item in reader.user_history("newcomer")] == history
    assert [one["item_id"] for one in answer["items"]] == [
        one.item_id for one in reader.recommend(history, decoder="vote")
    ]


def test_the_memory_is_looked_up_once_a_state_and_as_the_library_has_it(client: TestClient, place: Path) -> None:
    def looks() -> float:
        name = 'l2d_call_seconds_count{kind="describe",run="shop"} '
        return sum(float(line.removeprefix(name)) for line in metrics(client) if line.startswith(name))

    told = [memory(client) for _ in range(3)]
    assert looks() == 1
    assert client.put("/v1/items", json={"items": [{"item_id": 900_001, "title": "Quite New"}]}).status_code == 200
    assert memory(client)["catalog"] == told[0]["catalog"] + 1
    for first in (3, 6):
        client.post("/v1/interactions", json=bought("newcomer", first, first + 1))
        told.append(memory(client))
    assert looks() == 4
    info = opened(place).memory_info()
    assert [told[-1][name] for name in ("entries", "items", "users", "width")] == [
        info.entries, info.items, info.users, info.width,
    ]  # fmt: skip
    assert told[-1]["users"] == told[0]["users"] + 1
    assert told[-1]["versions"] == len(opened(place).versions())
    assert told[-1]["bytes"] > told[0]["bytes"] > 0


def test_a_write_that_is_repeated_does_nothing(client: TestClient) -> None:
    client.post("/v1/interactions", json=bought("newcomer", 3, 5))
    again = client.post("/v1/interactions", json=bought("newcomer", 3, 5)).json()
    assert (again["added"], again["known"], again["entries"]) == (0, 2, 0)


def test_a_write_with_an_unknown_item_is_refused_whole(client: TestClient) -> None:
    before = memory(client)["memory_version"]
    body = bought("newcomer", 3)
    body["interactions"].append({"user_id": "newcomer", "item_id": "no such item"})
    answer = client.post("/v1/interactions", json=body)
    assert answer.status_code == 422
    assert "no such item" in answer.json()["error"]["got"]
    assert any(line.startswith('l2d_refused_total{reason="input",run="shop"}') for line in metrics(client))
    assert memory(client)["memory_version"] == before


def test_who_is_forgotten_is_gone_and_cold(client: TestClient, place: Path) -> None:
    before = memory(client)["entries"]
    client.post("/v1/interactions", json=bought("newcomer", 3, 5, 7))
    told = client.delete("/v1/users/newcomer").json()
    assert (told["interactions"], told["entries"]) == (3, 2)
    assert memory(client)["entries"] == before
    assert client.post("/v1/recommend", json={"user": "newcomer"}).json()["cold"] is True
    assert client.delete("/v1/users/newcomer").json()["interactions"] == 0
    assert client.delete("/v1/users/17").json()["interactions"] > 0
    assert client.post("/v1/recommend", json={"user": 17}).json()["cold"] is True
    assert client.post("/v1/interactions", json=bought("other", 3, 5)).json()["added"] == 2, "it can be written on"
    assert all(b"newcomer" not in file.read_bytes() for file in place.rglob("*") if file.is_file())


def test_items_join_and_their_metadata_can_be_filtered_by(client: TestClient) -> None:
    new = {"item_id": 900_001, "title": "A Quite New Book", "metadata": {"shelf": "north"}}
    old = {"item_id": int(CATALOG.item_ids[4]), "metadata": {"shelf": "south"}}
    told = client.put("/v1/items", json={"items": [new, old]}).json()
    assert (told["added"], told["updated"]) == (1, 1)
    found = client.get("/v1/items", params={"query": "quite new"}).json()["items"]
    assert found == [{"item_id": 900_001, "title": "A Quite New Book", "entries": 0, "metadata": {"shelf": "north"}}]
    asked = {"history": ["A Quite New Book"], "filter": {"shelf": ["south", "west"]}, "decoder": "global"}
    assert [one["item_id"] for one in client.post("/v1/recommend", json=asked).json()["items"]] == [old["item_id"]]
    unknown = client.post("/v1/recommend", json={**asked, "filter": {"colour": "red"}})
    assert unknown.status_code == 422
    assert "colour" in unknown.json()["error"]["got"]
    other = client.put("/v1/items", json={"items": [{**new, "title": "Another"}]})
    assert other.status_code == 422


def test_an_explanation_names_no_user_without_the_scope(client: TestClient) -> None:
    body = {"history": [CATALOG.titles[3]], "k": 3, "explain": True}
    items = client.post("/v1/recommend", json=body).json()["items"]
    assert len(items) == 3
    for item in items:
        assert item["explanation"]["item_id"] == item["item_id"]
        assert not {"users", "carriers", "entries"} & set(item["explanation"])
        assert all(one["people"] >= 3 for one in item["explanation"]["evidence"])


def test_writes_go_to_all_runs_and_a_user_always_gets_the_same_one(run: Path, tmp_path: Path) -> None:
    places = [
        shutil.copytree(run, tmp_path / name, ignore=shutil.ignore_patterns("live.sqlite*", ".writer"))
        for name in ("one", "two")
    ]
    runs = {place.name: opened(place, writer=True) for place in places}
    with TestClient(app_of(runs), base_url=HERE) as client:
        told = client.post("/v1/interactions", json=bought("newcomer", 3, 5)).json()
        assert [(one["run"], one["added"], one["entries"]) for one in told["runs"]] == [("one", 2, 1), ("two", 2, 1)]
        chosen = [client.post("/v1/recommend", json={"user": f"user {n}", "k": 1}).json()["run"] for n in range(40)]
        again = [client.post("/v1/recommend", json={"user": f"user {n}", "k": 1}).json()["run"] for n in range(40)]
        assert chosen == again
        assert {10 <= chosen.count(name) <= 30 for name in runs} == {True}
        assert client.post("/v1/recommend", json={"user": "user 1", "k": 1, "run": "two"}).json()["run"] == "two"
        mixed = {"requests": [{"user": f"user {n}", "k": 1} for n in range(40)]}
        batch = client.post("/v1/recommend:batch", json=mixed).json()["responses"]
        assert [one["run"] for one in batch] == chosen
        missing = client.post("/v1/recommend", json={"user": 1, "run": "three"})
        assert missing.status_code == 404


def test_a_server_that_only_reads_takes_no_writes_and_follows_those_of_another(place: Path) -> None:
    with (
        opened(place, writer=True) as writer,
        TestClient(app_of({"shop": opened(place)}, read_only=True, poll_seconds=0.02), base_url=HERE) as client,
    ):
        assert client.post("/v1/interactions", json=bought("newcomer", 3)).status_code == 403
        assert client.delete("/v1/users/17").status_code == 403
        items = [Interaction("newcomer", int(CATALOG.item_ids[row]), LATER + row) for row in (3, 5)]
        version = writer.add_interactions(items).version
        await_(lambda: memory(client)["memory_version"] == version)
        answer = client.post("/v1/recommend", json={"user": "newcomer", "decoder": "vote"}).json()
        history = [f"id:{CATALOG.item_ids[row]}" for row in (3, 5)]
        assert [one["item_id"] for one in answer["items"]] == [
            one.item_id for one in opened(place).recommend(history, decoder="vote")
        ]
        swaps = 'l2d_call_seconds_count{kind="swap"'
        assert not any(line.startswith(swaps) for line in metrics(client)), "entries alone are taken in where they are"
        writer.forget(user="newcomer")
        await_(lambda: client.post("/v1/recommend", json={"user": "newcomer"}).json()["cold"] is True)


def await_(holds: Any) -> None:
    import time

    for _ in range(1000):
        if holds():
            return
        time.sleep(0.02)
    raise AssertionError("it never came to hold")


def test_answers_go_on_while_a_user_is_forgotten_and_while_a_run_is_opened_anew(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.post("/v1/interactions", json=bought("newcomer", 3, 5))
    begun, go_on = threading.Event(), threading.Event()
    forget = Recommender.forget

    def slow(self: Recommender, **options: Any) -> Any:
        begun.set()
        assert go_on.wait(60)
        return forget(self, **options)

    monkeypatch.setattr(Recommender, "forget", slow)
    answers: list[Any] = []
    deleting = threading.Thread(target=lambda: answers.append(client.delete("/v1/users/newcomer")))
    deleting.start()
    assert begun.wait(60)
    for decoder in ("vote", "global", "local", "popularity", "cooccurrence", "beam"):
        answer = client.post("/v1/recommend", json={"user": "newcomer", "decoder": decoder})
        assert (answer.status_code, answer.json()["cold"]) == (200, False)
    assert client.get("/metrics").status_code == 200
    go_on.set()
    deleting.join()
    assert answers[0].json()["interactions"] == 2
    assert client.post("/v1/recommend", json={"user": "newcomer"}).json()["cold"] is True


def reloaded(client: TestClient) -> None:
    """The run opened anew, as SIGHUP has it."""
    assert client.portal is not None
    client.portal.call(client.app.state.house.arms.first.reload)  # type: ignore[attr-defined]


def test_a_run_that_cannot_be_opened_anew_goes_on_as_it_was(
    client: TestClient, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.post("/v1/interactions", json=bought("newcomer", 3, 5))
    ledger = place / "memory.lance" / "ledger.json"
    ledger.rename(ledger.with_name("elsewhere"))
    with pytest.raises(InputError):
        reloaded(client)
    answer = client.post("/v1/recommend", json={"user": "newcomer", "decoder": "vote"})
    assert (answer.status_code, answer.json()["cold"]) == (200, False)
    ledger.with_name("elsewhere").rename(ledger)
    begin = Recommender.begin_writing

    def broken(self: Recommender, lock: WriterLock, *options: Any) -> None:
        begin(self, lock, *options)
        raise OSError("at the last step")

    with monkeypatch.context() as patched:
        patched.setattr(Recommender, "begin_writing", broken)
        with pytest.raises(OSError, match="at the last step"):
            reloaded(client)
    assert client.post("/v1/interactions", json=bought("newcomer", 7)).json()["entries"] == 1
    with pytest.raises(ArtifactBusy):
        opened(place, writer=True)
    reloaded(client)
    assert client.post("/v1/interactions", json=bought("newcomer", 9)).json()["entries"] == 1


def test_nothing_is_written_into_a_folder_that_took_the_place_of_the_run(client: TestClient, place: Path) -> None:
    client.post("/v1/interactions", json=bought("newcomer", 3, 5))
    new = shutil.copytree(place, place.with_name("new"), ignore=shutil.ignore_patterns("live.sqlite*", ".writer"))
    before = {file: file.read_bytes() for file in new.rglob("*") if file.is_file()}
    place.rename(place.with_name("old"))
    for there in (False, True):
        if there:
            new.rename(place)
        for answer in (
            client.post("/v1/interactions", json=bought("other", 3, 5)),
            client.delete("/v1/users/newcomer"),
            client.put("/v1/items", json={"items": [{"item_id": 900_001, "title": "A Quite New Book"}]}),
        ):
            assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
        assert client.post("/v1/recommend", json={"user": "newcomer", "decoder": "vote"}).json()["cold"] is False
    assert {new / file.relative_to(place): file.read_bytes() for file in place.rglob("*") if file.is_file()} == before
    reloaded(client)
    assert client.post("/v1/interactions", json=bought("other", 3, 5)).json()["entries"] == 1
    assert client.post("/v1/recommend", json={"user": "newcomer", "decoder": "vote"}).json()["cold"] is True
    with opened(place.with_name("old"), writer=True) as old:
        assert len(old.user_history("newcomer")) == 2


def test_a_backup_that_takes_the_journal_last_opens_and_holds_everything(place: Path, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    hidden = shutil.ignore_patterns("live.sqlite*", ".writer", ".*.part")
    with opened(place, writer=True) as run:
        users, items = [f"new {user}" for user in range(4)], [int(one) for one in CATALOG.item_ids]

        def write(first: int) -> None:
            run.add_interactions([Interaction(user, items[row], LATER) for row in (first, first + 1) for user in users])

        write(3)
        run.move()
        write(5)
        shutil.copytree(place, backup, ignore=hidden)
        write(7)
        run.move()
        write(9)
        with (
            contextlib.closing(sqlite3.connect(place / "live.sqlite")) as source,
            contextlib.closing(sqlite3.connect(backup / "live.sqlite")) as copied,
        ):
            source.backup(copied)
        ok("doctor", backup)
        with opened(backup, writer=True) as healed:
            assert all(healed.user_history(user) == run.user_history(user) for user in users)
            assert healed.entries.sample.tolist() == run.entries.sample.tolist()
            np.testing.assert_allclose(healed.entries.thoughts, run.entries.thoughts, atol=2e-2)


def test_a_server_that_ends_waits_for_a_move_and_refuses_what_comes_later(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    move = LiveMemory.move

    def slow(self: LiveMemory) -> int:
        threading.Event().wait(0.5)
        return move(self)

    async def day() -> None:
        settings = Settings()
        arm = Arm("shop", opened(place, writer=True), settings, Metrics())
        arm.start(asyncio.get_running_loop())
        items = [Interaction("newcomer", int(CATALOG.item_ids[row]), LATER + row) for row in (3, 5, 7)]
        assert (await arm.write("interactions", lambda run: run.add_interactions(items))).entries == 2
        monkeypatch.setattr(LiveMemory, "move", slow)
        arm.move_soon()
        await asyncio.sleep(0.1)
        await arm.close()
        with pytest.raises(Refused) as refused:
            await arm.call("late", lambda run: run.version)
        assert refused.value.reason == "draining"

    asyncio.run(day())
    assert opened(place).live.pending == 0


def test_many_writes_move_into_lance_by_themselves(client: TestClient) -> None:
    for user in range(30):
        assert client.post("/v1/interactions", json=bought(f"new {user}", *range(20))).json()["entries"] == 19
    lance = memory(client)["memory_version"].split(".")[0]
    pending = 'l2d_memory_pending{run="shop"}'
    await_(lambda: any(line.startswith(pending) and float(line.split()[1]) < 512 for line in metrics(client)))
    await_(lambda: int(memory(client)["memory_version"].split(".")[0]) >= int(lance) > 1)


def metrics(client: TestClient) -> list[str]:
    return client.get("/metrics").text.splitlines()
