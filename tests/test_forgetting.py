"""A run forgets: nothing of it is left in any byte, and what is left is what a run of the remaining data would hold."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forgetful import NEWCOMER, OWN, PLANTED, dataset, enliven, found, make, opened, shop_items
from l2d.artifacts import read_arrays, sha256_file, write_arrays
from l2d.decode import Spread, TitleMap, after_items
from l2d.errors import ArtifactBusy, ConfigError, DataError, UnknownItem
from l2d.evidence import Evidence
from l2d.interactions import SPLITS, UNKNOWN_TIME, Dataset, Examples, Interactions, Splits
from l2d.memory import Entries, aggregate
from l2d.recommender import Recommender, RecommendRequest
from l2d.recommender.forgetting import Forgotten
from l2d.run import Run
from shop import ok, refused

CUT = int(np.quantile(dataset().interactions.timestamp, 0.35))
CUSTOMERS = dataset().interactions.user_ids
WISHES: dict[str, dict[str, Any]] = {
    "user": {"user": PLANTED},
    "item": {"item": shop_items(5)[0]},
    "before": {"before": CUT},
}


@pytest.fixture(scope="module")
def alive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibrated run with live interactions; tests leave it as it is."""
    path = make(tmp_path_factory.mktemp("alive"))
    enliven(path)
    return path


@pytest.fixture
def copy(alive: Path, tmp_path: Path) -> Path:
    shutil.copytree(alive, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture(scope="module", params=WISHES)
def forgotten(
    request: pytest.FixtureRequest, alive: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """The name of a wish, and a run that fulfilled it."""
    path = tmp_path_factory.mktemp("forgotten") / "run"
    shutil.copytree(alive, path)
    with opened(path) as run:
        assert run.forget(**WISHES[request.param]).interactions > 0
    return request.param, path


def entries_of(run: Recommender) -> Entries:
    """As the disk has them."""
    return run.live.entries(run.catalog)


def owners(entries: Entries) -> np.ndarray:
    return np.array(entries.user_ids)[entries.user]


def by_hand(wish: str) -> Dataset:
    """The data without what is forgotten, filtered example by example."""
    data = dataset()
    log = data.interactions
    names, rows = np.array(log.user_ids)[log.user], np.array(data.catalog.item_ids)[log.row]
    gone = {"user": names == PLANTED, "item": rows == shop_items(5)[0], "before": log.timestamp < CUT}[wish]
    kept = np.flatnonzero(~gone)
    users = tuple(name for name in log.user_ids if name in set(names[kept]))
    owner = np.array([users.index(name) for name in names[kept]], np.int32)
    rest = Interactions(users, owner, log.row[kept], log.timestamp[kept])
    place = {int(old): new for new, old in enumerate(kept)}
    parts = []
    for name in SPLITS:
        columns: list[tuple[int, int, int]] = []
        for start, end, number in zip(
            *(getattr(data.splits[name], of) for of in ("start", "end", "sample")), strict=True
        ):
            history = [place[at] for at in range(start, end) if at in place]
            if int(end) in place and history:
                columns.append((history[0], place[int(end)], int(number)))
        parts.append(Examples(rest, *(np.array(column, np.int64) for column in zip(*columns, strict=True))))
    return Dataset(data.catalog, rest, Splits(*parts))


def needles(path: Path) -> list[bytes]:
    """What is the planted user's alone: the id, the thoughts, the times."""
    with opened(path) as run:
        entries, log = entries_of(run), run.live.log()
        thoughts = [thought.tobytes() for thought in entries.thoughts[owners(entries) == PLANTED]]
        times = [int(time) for user, time in zip(log.user_ids, log.timestamp, strict=True) if user == PLANTED]
        data = run.dataset.interactions
        times += data.timestamp[np.array(data.user_ids)[data.user] == PLANTED].tolist()
    assert len(thoughts) > 8 and len(set(times)) == 14
    return [PLANTED.encode(), *thoughts, *(form for t in times for form in (str(t).encode(), t.to_bytes(8, "little")))]


def test_no_byte_of_a_user_is_left(copy: Path) -> None:
    sought = needles(copy)
    everywhere = found(copy, sought)
    for place in (
        "data/users.parquet:user_id",
        "data/interactions.parquet:timestamp",
        "live.sqlite",
        "calibration.npz:x",
    ):
        assert place in everywhere or place.endswith(":x"), place
    assert {place.partition(" ")[0].partition(":")[0] for place in everywhere} >= {"lance", "live.sqlite"}
    with opened(copy) as run:
        before = entries_of(run)
        done = run.forget(user=PLANTED)
        left = entries_of(run)
        assert found(copy, sought) == set(), "while the writer is open"
        assert done == Forgotten(14, int((owners(before) == PLANTED).sum()), run.live.version)
        kept = np.flatnonzero(owners(before) != PLANTED)
        assert left.thoughts.tobytes() == before.thoughts[kept].tobytes(), "other entries are untouched"
        np.testing.assert_array_equal(left.sample, before.sample[kept])
        assert run.live.journal is not None and run.live.journal.wishes() == []
        own = run.catalog.rows(OWN)
        assert not np.isin(run.dataset.interactions.row, own).any()
        assert PLANTED not in run.live.log().user_ids and NEWCOMER in run.live.log().user_ids
    assert found(copy, sought) == set(), "once it is closed"
    Run(copy).verify(Run(copy).read_manifest())


def test_the_rest_is_what_a_run_of_the_remaining_data_would_hold(forgotten: tuple[str, Path], tmp_path: Path) -> None:
    wish, path = forgotten
    with opened(path) as run:
        expected, got = by_hand(wish), run.dataset
        assert got.interactions.user_ids == expected.interactions.user_ids
        for name in SPLITS:
            for column in ("sample", "target", "timestamp", "user"):
                np.testing.assert_array_equal(getattr(got.splits[name], column), getattr(expected.splits[name], column))
            same = zip(got.splits[name], expected.splits[name], strict=True)
            assert all(a.history.tolist() == b.history.tolist() for a, b in same)
        counts = Evidence.learn(expected.splits.train, len(expected.catalog))
        np.testing.assert_array_equal(run.train_evidence.popularity, counts.popularity)
        for links in ("transitions", "cooccurrence"):
            for part in ("starts", "targets", "weights"):
                np.testing.assert_array_equal(
                    getattr(getattr(run.train_evidence, links), part), getattr(getattr(counts, links), part)
                )
        entries, log = entries_of(run), run.live.log()
        lately = entries.sample > run.live.base
        came = np.bincount(entries.row[lately], minlength=len(run.catalog))
        np.testing.assert_array_equal(run.evidence.popularity, counts.popularity + came)
        np.testing.assert_array_equal(entries.sample[lately], run.live.base + log.seq[log.entry])
        taken = {user: run.dataset.user_history(user, 999).tolist() for user in log.user_ids if run.dataset.knows(user)}
        histories = []
        for user, item, made in zip(log.user_ids, log.item_ids, log.entry, strict=True):
            histories += [run.trimmed(np.array(taken[user], np.int32))] if made else []
            taken.setdefault(user, []).append(run.catalog.row(item))
        thoughts = run.thoughts(histories)
        np.testing.assert_allclose(entries.thoughts[lately].astype(np.float32), thoughts, atol=2e-3)
        shutil.copytree(path, tmp_path / "rebuilt")
    rebuilt = Recommender.load(tmp_path / "rebuilt", device="cpu")
    rebuilt.build_memory(through="valid", overwrite=True)
    for name in ("row", "timestamp", "sample"):
        np.testing.assert_array_equal(getattr(entries, name), getattr(rebuilt.entries, name))
    assert owners(entries).tolist() == owners(rebuilt.entries).tolist()
    np.testing.assert_allclose(
        entries.thoughts.astype(np.float32), rebuilt.entries.thoughts.astype(np.float32), atol=2e-3
    )


def test_what_was_calibrated_is_measured_again(forgotten: tuple[str, Path]) -> None:
    _, path = forgotten
    run = Recommender.load(path, device="cpu")
    train, arrays = run.dataset.splits.train, read_arrays(path / "calibration.npz")
    entries = run.entries.take(np.flatnonzero(np.isin(run.entries.sample, train.sample)))
    assert len(entries) == len(train)
    titles = run.thoughts([np.array([row], np.int32) for row in range(len(run.catalog))])
    items = aggregate(entries, len(run.catalog))
    spread, title_map = Spread.of(entries, items), TitleMap.fit(titles, items)
    np.testing.assert_allclose(arrays["spread_within"], spread.within, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(arrays["spread_centre"], spread.centre, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(arrays["text"], title_map(titles), atol=1e-3)
    np.testing.assert_allclose(arrays["after"], after_items(entries, train, titles), atol=1e-4)


def test_the_open_run_answers_as_one_opened_afresh(copy: Path) -> None:
    with opened(copy) as run:
        requests = [RecommendRequest([item]) for item in shop_items(1, 5, 9)]
        stale = run.recommend_batch(requests, decoder="auto")
        run.forget(before=CUT)
        for decoder in ("auto", "recall", "vote", "global", "cooccurrence"):
            now = run.recommend_batch(requests, decoder=decoder)
            assert now == Recommender.load(copy, device="cpu").recommend_batch(requests, decoder=decoder), decoder
            assert decoder != "auto" or now != stale
        history = [run.catalog.item_id(int(row)) for row in run.dataset.splits.test.history(0)]
        assert run.explain(history, run.recommend(history, decoder="vote")[0].item_id).carriers


@pytest.mark.parametrize(
    ("user", "interactions"), [(CUSTOMERS[7], None), ("guest", 3), (NEWCOMER, 3), (CUSTOMERS[4], None), ("nobody", 0)]
)
def test_users_of_the_data_of_the_journal_of_both_and_of_neither(
    copy: Path, user: str, interactions: int | None
) -> None:
    with opened(copy) as run:
        log, before = run.dataset.interactions, entries_of(run)
        here = int((np.array(log.user_ids)[log.user] == user).sum())
        live = run.live.log().user_ids.count(user)
        fingerprint, version = run.dataset.fingerprint, run.live.version
        done = run.forget(user=user)
        assert done.interactions == here + live == (here + live if interactions is None else interactions)
        assert done.entries == int((owners(before) == user).sum()) == len(before) - len(entries_of(run))
        assert (run.dataset.fingerprint != fingerprint) == bool(here)
        assert (run.live.version == version) == (user == "nobody")
        assert run.forget(user=user) == Forgotten(0, 0, run.live.version), "a second time"
    assert found(copy, [user.encode()]) == set()


def test_a_wish_that_cannot_be_fulfilled_changes_nothing(copy: Path) -> None:
    latest = int(dataset().interactions.timestamp.max())
    with opened(copy) as run:
        before = {file: file.read_bytes() for file in sorted(copy.rglob("*")) if file.is_file()}
        with pytest.raises(DataError, match="no example left"):
            run.forget(before=latest + 1)
        with pytest.raises(UnknownItem):
            run.forget(item="nothing")
        with pytest.raises(ConfigError, match="one of them alone"):
            run.forget(user="a", item=OWN[0])
        assert {file: file.read_bytes() for file in sorted(copy.rglob("*")) if file.is_file()} == before


def test_live_interactions_are_forgotten_by_time_where_the_data_have_none(tmp_path: Path) -> None:
    data = dataset()
    log = replace(data.interactions, timestamp=np.full(len(data.interactions), UNKNOWN_TIME))
    splits = {
        name: Examples(log, part.start, part.end, part.sample)
        for name, part in ((name, data.splits[name]) for name in SPLITS)
    }
    path = make(tmp_path, replace(data, interactions=log, splits=Splits(**splits)))
    with opened(path) as run, pytest.raises(ConfigError, match="no interaction has a time"):
        run.forget(before=1_750_000_000)
    enliven(path, 1_750_000_000)
    with opened(path) as run:
        before, fingerprint = run.live.log(), run.dataset.fingerprint
        done = run.forget(before=1_750_000_000 + 21)
        assert done.interactions == (before.timestamp < 1_750_000_021).sum() > 0
        assert run.live.log().timestamp.min() == 1_750_000_021 and run.dataset.fingerprint == fingerprint


def test_half_written_files_trained_opponents_and_old_states_go_too(copy: Path) -> None:
    for folder in (copy / "peers" / "sasrec", copy / ".data.4194305.part", copy / ".memory.lance.77.removed"):
        folder.mkdir(parents=True)
        (folder / "x").write_text(PLANTED)
    (copy / "data" / ".users.parquet.4194306.part").write_text(PLANTED)
    with opened(copy) as run:
        run.forget(user=PLANTED)
    assert found(copy, [PLANTED.encode()]) == set()
    assert not (copy / "peers").exists()


def test_the_memory_is_built_calibrated_and_judged_after_a_forget(forgotten: tuple[str, Path], tmp_path: Path) -> None:
    _, path = forgotten
    shutil.copytree(path, tmp_path / "run")
    run = Recommender.load(tmp_path / "run", device="cpu")
    held = run.memory.samples().tolist()
    assert run.build_memory(through="valid").entries == len(held), "it is complete"
    assert run.memory.samples().tolist() == held
    run.calibrate()
    assert set(run.evaluate(["auto", "vote"], split="test", timing=False).rows) == {"auto", "vote"}


def test_a_run_without_a_memory_forgets_its_data(alive: Path, tmp_path: Path) -> None:
    shutil.copytree(alive, tmp_path / "run", ignore=shutil.ignore_patterns("memory.lance", "live.sqlite*", "*.npz"))
    with opened(tmp_path / "run") as run:
        assert run.forget(user=PLANTED) == Forgotten(12, 0, "")
    again = Recommender.load(tmp_path / "run", device="cpu")
    assert PLANTED not in again.dataset.interactions.user_ids
    assert again.dataset.fingerprint == run.dataset.fingerprint == again.manifest["data"]


def test_a_calibration_that_kept_no_thoughts_of_titles_is_measured_again_as_well(copy: Path, alive: Path) -> None:
    place = Run(copy)
    arrays = read_arrays(place.calibration)
    write_arrays(place.calibration, {name: arrays[name] for name in arrays if name not in ("alone", "seed")})
    place.record(place.read_manifest(), calibration=sha256_file(place.calibration))
    with opened(copy) as run:
        run.forget(user=PLANTED)
    shutil.copytree(alive, copy.with_name("other"))
    with opened(copy.with_name("other")) as run:
        run.forget(user=PLANTED)
    with_them, without = (read_arrays(path / "calibration.npz") for path in (copy.with_name("other"), copy))
    assert with_them.keys() == without.keys()
    for name in without:
        np.testing.assert_allclose(with_them[name], without[name], atol=1e-6, err_msg=name)


def test_a_reader_from_before_is_told_to_open_the_run_again_and_does_so_to_answer(copy: Path) -> None:
    reader = Recommender.load(copy, device="cpu")
    assert reader.calibrated
    with opened(copy) as run:
        run.forget(user=PLANTED)
    with pytest.raises(ArtifactBusy, match="open it again, another process wrote to it"):
        reader.auto  # noqa: B018
    assert reader.recommend([shop_items(3)[0]], decoder="auto") and not reader.dataset.knows(PLANTED)


def test_sizes_are_kept_where_longer_histories_are_forgotten(copy: Path) -> None:
    """A request is cut as it was before, whoever had the longest history."""
    with opened(copy) as run:
        longest = run.longest_history
        run.forget(user=PLANTED)
        record = json.loads((copy / "data" / "dataset.json").read_text())
        assert record["info"]["longest_history"] == longest == Recommender.load(copy, device="cpu").longest_history


def test_the_command_forgets_and_says_what_stays(copy: Path) -> None:
    said = ok("memory", "forget", copy, "--user", PLANTED, "--device", "cpu").out
    assert "14 interactions and" in said and "the tuned weights" in said and "stays" in said
    assert found(copy, [PLANTED.encode()]) == set()
    assert "nothing to forget" in ok("memory", "forget", copy, "--user", PLANTED, "--device", "cpu").out
    day = datetime.fromtimestamp(CUT, UTC).date()
    assert "entries of the memory are forgotten" in ok("memory", "forget", copy, "--before", day, "--device", "cpu").out
    data = Dataset.load(copy / "data").interactions
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
    assert data.timestamp.min() >= midnight > dataset().interactions.timestamp.min()


def test_the_command_refuses_what_is_no_wish(alive: Path) -> None:
    assert "one of them alone" in refused("memory", "forget", alive)
    assert "one of them alone" in refused("memory", "forget", alive, "--user", "a", "--item", "b")
    assert "unknown item id" in refused("memory", "forget", alive, "--item", "nothing")
    assert "--before" in refused("memory", "forget", alive, "--before", "yesterday")
