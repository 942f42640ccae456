"""A run that lives answers, after whatever was written, as one that was loaded from its files."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from l2d import Recommender
from l2d.artifacts import WriterLock
from l2d.errors import ArtifactBusy, ArtifactMismatch, ConfigError, DataError, InputError, OutOfSpace, UnknownItem
from l2d.evidence import Evidence
from l2d.memory import LiveMemory, item_sums
from l2d.prompts import Prompts
from l2d.recommender import Interaction
from l2d.recommender import following as following_file
from l2d.recommender import living as living_file
from l2d.recommender import opening as opening_file
from shop import CATALOG

IDS = CATALOG.item_ids

START = 1_760_000_000
"""After everything in the shop's log."""


@pytest.fixture(scope="module")
def calibrated(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shop's run, calibrated; copied and never written to."""
    copy = tmp_path_factory.mktemp("living") / "run"
    shutil.copytree(run, copy)
    Recommender.load(copy, verify=False).calibrate()
    return copy


@pytest.fixture
def place(calibrated: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(calibrated, tmp_path / "run"))


def load(place: Path, *, writer: bool = False) -> Recommender:
    return Recommender.load(place, verify=False, writer=writer)


def some(rec: Recommender, n: int, seed: int, *, users: int = 6) -> list[Interaction]:
    """Interactions of users whom the data know, and of new ones, an hour apart."""
    rng = np.random.default_rng(seed)
    ids = [*rec.dataset.interactions.user_ids[:users], *(f"new {seed // 10} {index}" for index in range(users))]
    return [
        Interaction(
            str(rng.choice(ids)), rec.catalog.item_ids[rng.integers(len(rec.catalog))], START + seed + hour * 3600
        )
        for hour in range(n)
    ]


HISTORIES = [[0, 1, 2], [5], [9, 3, 3, 17], [30, 31]]


def lists(rec: Recommender, decoder: str, k: int = 20):
    histories = [np.array(rows, dtype=np.int32) for rows in HISTORIES]
    return rec.decoder(decoder).rank(rec.requests(histories, think=True), k)


def assert_same_answers(rec: Recommender, other: Recommender, *, counted: bool) -> None:
    """Bit-equal where nothing is rounded on the way; auto in its scores, and only once both have counted alike."""
    for name in ("thoughts", "row", "timestamp", "sample"):
        np.testing.assert_array_equal(getattr(rec.entries, name), getattr(other.entries, name))
    owners = [[one.entries.user_ids[user] for user in one.entries.user] for one in (rec, other)]
    assert owners[0] == owners[1]
    assert rec.item_vectors.vectors.tobytes() == other.item_vectors.vectors.tobytes()
    np.testing.assert_array_equal(rec.item_vectors.counts, other.item_vectors.counts)
    for decoder in ("global", "local", "vote"):
        got, expected = lists(rec, decoder), lists(other, decoder)
        np.testing.assert_array_equal(got.rows, expected.rows)
        np.testing.assert_array_equal(got.scores, expected.scores)
    if counted:
        items = len(rec.catalog)
        got, expected = lists(rec, "auto", items), lists(other, "auto", items)
        np.testing.assert_allclose(got.scores, expected.scores, rtol=1e-4, atol=1e-9)
        assert (got.rows[:, :5] == expected.rows[:, :5]).mean() > 0.9, "equal but for near ties"


@pytest.mark.parametrize("seed", [0, 1])
def test_any_sequence_of_writes_leaves_what_a_load_would_find(place: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    with load(place, writer=True) as rec:
        reader = load(place)
        lists(rec, "auto"), lists(reader, "auto"), lists(rec, "recall")
        for step in range(6):
            kind = rng.choice(["one", "some", "move", "items", "compact"], p=[0.3, 0.3, 0.2, 0.1, 0.1])
            if kind in ("one", "some"):
                asked = some(rec, 1 if kind == "one" else 25, 10 * step + seed)
                written = rec.add_interactions(asked)
                assert written.added + written.known == len(asked) and written.version == rec.version
            elif kind == "items":
                rec.add_items({str(10_000 + step): f"quiet harbour {step}"})
            else:
                rec.move() if kind == "move" else rec.compact()
            assert (reader.stale and reader.refresh()) or kind in ("compact", "move"), "these may find nothing to do"
            assert not reader.stale and not reader.refresh()
            assert_same_answers(rec, reader, counted=False)
        rec.move()
        reader.refresh()
        fresh = load(place)
        assert fresh.version == rec.version == reader.version
        assert_same_answers(rec, fresh, counted=True)
        assert_same_answers(reader, fresh, counted=True)
        whole = fresh.entries
        assert item_sums(rec.entries, len(rec.catalog))[0].tobytes() == item_sums(whole, len(rec.catalog))[0].tobytes()
        for user in {one.user_id for one in some(rec, 40, 10)}:
            if user in rec.histories._rows:
                assert rec.user_history(user) == fresh.user_history(user) == reader.user_history(user)
        lists(rec, "recall")


def test_an_entry_is_the_thought_of_its_history_labelled_with_the_item(place: Path) -> None:
    with load(place, writer=True) as rec:
        user = rec.dataset.interactions.user_ids[0]
        before = [rec.catalog.row(item) for item in rec.user_history(user)]
        size = len(rec.entries)
        asked = [Interaction(user, item, START) for item in IDS[:3]]
        written = rec.add_interactions(asked)
        assert (written.added, written.known, written.entries, written.seq) == (3, 0, 3, 3)
        rows = [rec.catalog.row(one.item_id) for one in asked]
        assert rec.entries.row[size:].tolist() == rows
        assert rec.entries.sample[size:].tolist() == [rec.dataset.next_sample + seq for seq in (1, 2, 3)]
        histories = [np.array(before + rows[:place], dtype=np.int32) for place in range(3)]
        thoughts = rec.thoughts([rec.trimmed(history) for history in histories])
        np.testing.assert_allclose(rec.entries.thoughts[size:], thoughts, atol=2e-3 * np.abs(thoughts).max())
        assert rec.user_history(user) == [rec.catalog.item_id(row) for row in before + rows]


def test_a_new_user_makes_an_entry_from_the_second_interaction_on(place: Path) -> None:
    with load(place, writer=True) as rec:
        with pytest.raises(DataError, match="unknown user"):
            rec.user_history("anna")
        one, two = (rec.add_interactions([Interaction("anna", item, START)]) for item in IDS[:2])
        assert (one.entries, two.entries) == (0, 1)
        assert [str(item) for item in rec.user_history("anna")] == list(IDS[:2])
        assert rec.memory_info().interactions == 2 and rec.memory_info().pending == 1
    assert [str(item) for item in load(place).user_history("anna")] == list(IDS[:2])


def test_a_write_is_part_of_the_next_request(place: Path) -> None:
    with load(place, writer=True) as rec:
        rec.add_items({"100777": "an unheard-of thing"})
        history = rec.user_history(rec.dataset.interactions.user_ids[3])
        assert rec.recommend(history, decoder="vote", neighbours=1, k=1)[0].title != "an unheard-of thing"
        rec.add_interactions([Interaction(rec.dataset.interactions.user_ids[3], "100777", START)])
        assert rec.recommend(history, decoder="global", k=1)[0].title == "an unheard-of thing"
        assert rec.recommend(history, decoder="vote", neighbours=1, k=1)[0].title == "an unheard-of thing"
        found = rec.explain(history, "100777", with_users=True)
        seen = {carrier.item_id for carrier in found.carriers}
        assert found.entries == 1 and seen == set(history[-len(seen) :]) and found.users is not None


def test_what_was_written_before_is_known(place: Path) -> None:
    with load(place, writer=True) as rec:
        log = rec.dataset.interactions
        old = Interaction(log.user_ids[log.user[0]], rec.catalog.item_ids[log.row[0]], int(log.timestamp[0]))
        asked = [
            Interaction("b", IDS[0], START),
            old,
            Interaction("b", IDS[0], START),
            Interaction("b", IDS[0], START + 1),
        ]
        assert [rec.add_interactions(asked).known for _ in range(2)] == [2, 4]
        assert rec.memory_info().interactions == 2
        assert rec.add_interactions([Interaction(old.user_id, old.item_id, START)]).added == 1, (
            "another time is another interaction"
        )
        assert rec.add_interactions([]).added == 0
    with load(place, writer=True) as again:
        assert again.add_interactions(asked).known == 4


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        (Interaction("u", "no such item", START), UnknownItem, "interaction 2 has an unknown item"),
        (Interaction("u", IDS[0], int(time.time()) * 1000), DataError, "interaction 2 has an impossible time"),
        (Interaction("u", IDS[0], -1), DataError, "impossible time"),
        (Interaction("u", IDS[0], 1.5), DataError, "impossible time"),
        (Interaction("", IDS[0], START), DataError, "impossible user"),
        (Interaction(True, IDS[0], START), DataError, "impossible user"),
        (Interaction("\ud800", IDS[0], START), DataError, "interaction 2 has an impossible user"),
    ],
)
def test_one_wrong_interaction_refuses_all(place: Path, wrong: Interaction, error: type, says: str) -> None:
    with load(place, writer=True) as rec:
        before, size = rec.version, len(rec.entries)
        with pytest.raises(error, match=says):
            rec.add_interactions([Interaction("u", IDS[0], START), wrong])
        assert (rec.version, len(rec.entries)) == (before, size)
        assert rec.memory_info().interactions == 0


def test_one_process_writes_and_others_read(place: Path) -> None:
    reader = load(place)
    with load(place, writer=True) as rec:
        with pytest.raises(ArtifactBusy, match="this very process"):
            load(place, writer=True)
        for verb in (reader.move, reader.compact, lambda: reader.add_interactions([]), lambda: reader.forget(user="1")):
            with pytest.raises(ConfigError, match="opened for reading"):
                verb()
        with pytest.raises(ArtifactBusy):
            reader.build_memory()
        assert rec.add_interactions(some(rec, 3, 0)).added == 3
    with load(place, writer=True) as rec:
        assert rec.memory_info().interactions == 3
    WriterLock(place / ".writer").release()


def test_rolling_back_takes_later_interactions_away(place: Path) -> None:
    with load(place, writer=True) as rec:
        reader = load(place)
        lists(rec, "auto"), lists(reader, "vote")
        rec.add_interactions(some(rec, 20, 1))
        rec.move()
        kept, answers = rec.versions()[-1], lists(rec, "vote")
        rec.add_interactions(some(rec, 20, 11))
        rec.move()
        rec.add_interactions(some(rec, 5, 21))
        assert rec.roll_back(kept.version) == 25
        left = b"".join(file.read_bytes() for file in place.glob("live.sqlite*"))
        assert b"new 0 " in left and b"new 1 " not in left and rec.live.journal.wishes() == []
        np.testing.assert_array_equal(lists(rec, "vote").scores, answers.scores)
        assert rec.memory_info().interactions == 20
        assert reader.refresh()
        assert_same_answers(reader, rec, counted=False)
        assert rec.add_interactions(some(rec, 20, 11)).added == 20, "what was undone may come again"
        assert_same_answers(rec, load(place), counted=False)


def test_a_memory_that_is_built_anew_gets_its_live_entries_back(place: Path) -> None:
    with load(place, writer=True) as rec:
        rec.add_interactions(some(rec, 30, 2))
        rec.move()
        rec.add_interactions(some(rec, 5, 12))
        before = rec.entries.first(len(rec.entries))
    rec = load(place)
    rec.build_memory(overwrite=True)
    np.testing.assert_array_equal(rec.entries.sample, before.sample)
    np.testing.assert_array_equal(rec.entries.row, before.row)
    scale = float(np.abs(before.thoughts).max())
    np.testing.assert_allclose(rec.entries.thoughts, before.thoughts, atol=2e-3 * scale)
    assert rec.memory_info().interactions == 35
    assert_same_answers(rec, load(place), counted=False)


def test_training_entries_never_hold_live_ones(place: Path) -> None:
    with load(place, writer=True) as rec:
        train = rec.train_entries
        size = len(train)
        assert size == len(rec.dataset.splits.train)
        rec.add_interactions(some(rec, 30, 3))
        assert len(train) == len(rec.train_entries) == size < len(rec.entries)
        counts = rec.train_evidence.popularity.sum()
        rec.move()
        assert rec.evidence.popularity.sum() > rec.train_evidence.popularity.sum() == counts
        recipe = rec.constants.auto.recipe
    with load(place, writer=True) as again:
        again.calibrate()
        assert again.constants.auto.recipe == recipe, "live entries have no say in the constants"


def test_a_split_is_refused_once_its_targets_came_in_live(place: Path) -> None:
    with load(place, writer=True) as rec:
        rec.add_interactions(some(rec, 10, 4))
        test = rec.dataset.splits.test
        if not rec.live_targets("test"):
            rec.evaluate(["vote"], split="test", users=5, timing=False)
        user, item = rec.dataset.interactions.user_ids[test.user[0]], rec.catalog.item_ids[test.target[0]]
        rec.add_interactions([Interaction(user, item, START)])
        assert rec.live_targets("test") > 0
        with pytest.raises(ArtifactMismatch, match="came in live"):
            rec.evaluate(["vote"], split="test", users=5, timing=False)
        rec.evaluate(["cooccurrence"], split="test", users=5, timing=False)


def test_live_interactions_are_counted_with_their_histories(place: Path) -> None:
    with load(place, writer=True) as rec:
        base = rec.evidence
        user = rec.dataset.interactions.user_ids[0]
        *_, last = rec.user_history(user)
        rec.add_interactions([Interaction(user, IDS[7], START), Interaction("newcomer", IDS[7], START)])
        assert rec.evidence is base, "counts wait for the next move"
        assert rec.move() == 1
        source, target = rec.catalog.row(last), rec.catalog.row(IDS[7])
        assert rec.evidence.popularity[target] == base.popularity[target] + 1
        assert weight(rec.evidence, source, target) == weight(base, source, target) + 1
        assert rec.auto.materials.evidence is rec.evidence
        fresh = load(place).evidence
        np.testing.assert_allclose(fresh.cooccurrence.weights, rec.evidence.cooccurrence.weights, rtol=1e-12)
        np.testing.assert_array_equal(fresh.cooccurrence.targets, rec.evidence.cooccurrence.targets)


def weight(evidence: Evidence, source: int, target: int) -> float:
    targets, weights = evidence.transitions.of(source)
    return float(weights[targets == target].sum())


def test_a_write_stands_though_moving_it_fails(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(living_file, "MOVE_AT", 4)
    monkeypatch.setattr(Recommender, "_move_at", 4)

    def full(_: LiveMemory) -> int:
        raise OutOfSpace("no space left")

    with Recommender.load(place, verify=False, writer=True, notice=said.append) as rec:
        with monkeypatch.context() as meanwhile:
            meanwhile.setattr(LiveMemory, "move", full)
            assert rec.add_interactions(some(rec, 20, 5)).added == 20
            assert "no space left" in said[-1] and rec.memory_info().pending > 4
        assert_same_answers(rec, load(place), counted=False)
        rec.add_interactions(some(rec, 20, 15))
        assert rec.memory_info().pending == 0
        assert_same_answers(rec, load(place), counted=False)


def test_a_failure_between_disk_and_memory_is_read_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with load(place, writer=True) as rec:
        lists(rec, "auto")
        with monkeypatch.context() as meanwhile:
            meanwhile.setattr(type(rec.item_vectors), "follow", broken)
            with pytest.raises(InputError, match="broken"):
                rec.add_interactions(some(rec, 20, 6))
        assert rec.memory_info().interactions == 20
        assert_same_answers(rec, load(place), counted=False)


def broken(*_: object) -> None:
    raise InputError("broken")


def test_what_is_forgotten_is_gone_from_histories_and_answers(place: Path) -> None:
    with load(place, writer=True) as rec:
        rec.add_interactions([Interaction("anna", item, START) for item in IDS[:3]])
        lists(rec, "auto")
        assert rec.forget(user="anna").interactions == 3
        with pytest.raises(DataError, match="unknown user"):
            rec.user_history("anna")
        rec.add_interactions(some(rec, 5, 7))
        assert_same_answers(rec, load(place), counted=False)


def test_a_refresh_that_failed_is_tried_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OutOfSpace("not now")

    with load(place, writer=True) as rec:
        reader = load(place)
        lists(reader, "auto")
        for write, step in (
            (lambda: rec.add_items({"7001": "quiet harbour"}), (following_file, "read_data")),
            (lambda: rec.add_items({"7002": "quiet harbour again"}), (opening_file, "read_beside")),
            (lambda: rec.add_interactions(some(rec, 3, 70)), (LiveMemory, "state")),
        ):
            write()
            with monkeypatch.context() as patch, pytest.raises(OutOfSpace):
                patch.setattr(*step, fails)
                reader.refresh()
            lists(reader, "auto")
            assert reader.stale and reader.refresh() and not reader.stale
            assert_same_answers(reader, load(place), counted=False)


def test_items_that_come_in_while_a_run_is_loaded_are_there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "items-0123456789ab.parquet").write_bytes(b"left by a process that died")
    with load(place, writer=True) as rec:
        assert not list(place.glob("items-*.parquet"))
        rec.add_items({"7001": "quiet harbour"})
        loaded = Prompts.load

        def meanwhile(*arguments: object, **options: object) -> Prompts:
            rec.add_items({"7002": "quiet harbour again"})
            return loaded(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(Prompts, "load", meanwhile)
            reader = load(place)
        assert reader.catalog.item_ids == rec.catalog.item_ids and not reader.stale
        assert len(list(place.glob("items-*.parquet"))) == 1


def test_a_reader_from_before_the_first_write_finds_the_histories_of_live_entries(place: Path) -> None:
    reader = load(place)
    assert lists(reader, "vote") and len(reader.histories) == 0
    with load(place, writer=True) as rec:
        rec.add_interactions(some(rec, 20, 0))
    assert reader.refresh()
    fresh = load(place)
    found = reader.histories.places(reader.entries.sample)
    np.testing.assert_array_equal(found, fresh.histories.places(fresh.entries.sample))
    assert found.max() > 0
