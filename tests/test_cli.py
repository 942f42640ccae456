"""The command line as other tools call it: one run made by its commands, then used."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from shop import CATALOG, LOG, ok


def listed(line: str) -> list[dict[str, object]]:
    record = json.loads(line)
    assert list(record) == ["items"]
    return record["items"]


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
