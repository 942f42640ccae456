"""The speed tables of thoughts, tuning, matrix rate and requests: smoke runs whose ratios follow from their counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import matrix
import offline
import padding
import request
import requests_language
import tuning
from l2d.backbone import Backbone
from l2d.packing import pack
from titles import backbone
from turns import Places


@pytest.fixture(autouse=True)
def threads() -> Any:
    """The scripts set the threads of the process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def read(path: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(path.read_text())
    assert {"commit", "versions", "machine"} <= record.keys()
    return record


def assert_spread(ratio: dict[str, float]) -> None:
    assert 0 < ratio["low"] <= ratio["median"] <= ratio["high"]


def test_offline_thoughts(tmp_path: Path) -> None:
    offline.main(["--smoke", "--json", str(tmp_path / "found.json")])
    rows = read(tmp_path / "found.json")["rows"]
    assert [(row["template"], row["backbone"]) for row in rows] == [("instruct", "tiny"), ("compact", "tiny")]
    for row in rows:
        sample, whole, places = row["sample"], row["whole"], row["sample"]["places"]
        assert sample["prompts"] == 48 and whole["prompts"] > 48
        for part in (sample, whole):
            assert part["token_ratio"] == part["tokens"] / part["nodes"] > 1
        assert places["one_by_one"] == sample["tokens"] <= places["padded"]
        assert sample["nodes"] <= places["packed"]
        assert sample["place_ratio"] == places["padded"] / places["packed"]
        assert row["difference"] < offline.SAME["float32"]
        for name in ("padded", "one_by_one"):
            assert_spread(row["over_packed"][name])
        for name, ms in row["median_ms"].items():
            assert row["prompts_per_second"][name] == pytest.approx(24 / ms * 1000)
    assert rows[0]["whole"]["token_ratio"] > rows[1]["whole"]["token_ratio"], "the instruction is shared by all"


def test_tuning_steps(tmp_path: Path) -> None:
    tuning.main(["--smoke", "--json", str(tmp_path / "found.json")])
    for row in read(tmp_path / "found.json")["rows"]:
        sample, whole, places = row["sample"], row["whole"], row["sample"]["places"]
        assert 2 * 16 <= sample["samples"] < whole["samples"]
        for part in (sample, whole):
            assert part["token_ratio"] == part["tokens"] / part["nodes"] > 1
        assert places["padded"] >= sample["tokens"] and places["packed"] >= sample["nodes"]
        assert sample["place_ratio"] == places["padded"] / places["packed"]
        assert max(row["differences"].values()) < tuning.SAME["float32"]
        assert_spread(row["over_packed"]["padded"])
        for name, ms in row["median_ms"].items():
            assert row["samples_per_second"][name] == pytest.approx(sample["samples"] / 2 / ms * 1000)


def test_matrix_rate(tmp_path: Path) -> None:
    matrix.main(["--smoke", "--json", str(tmp_path / "found.json")])
    for row in read(tmp_path / "found.json")["rows"]:
        assert [found["batch"] for found in row["sweep"]] == [1, 2]
        assert row["best"]["share"] == max(found["share"] for found in row["sweep"]) > 0
        one, two = (found["operations"]["prefill"] for found in row["sweep"])
        assert two == 2 * one
        parts = [row["profile"][part] for part in ("products", "attention", "rest")]
        assert sum(parts) == pytest.approx(1) and min(parts) > 0


def test_operations_by_hand() -> None:
    body = backbone("llama")
    config, length = body.model.config, 7
    width, heads = config.hidden_size, config.num_attention_heads
    keys = config.num_key_value_heads * config.head_dim
    weights = width * heads * config.head_dim * 2 + 2 * width * keys + 3 * width * config.intermediate_size
    pairs = sum(place + 1 for place in range(length))
    by_hand = 3 * config.num_hidden_layers * (2 * weights * length + 4 * heads * config.head_dim * pairs)
    assert matrix.operations(body, 3, length) == by_hand


def test_requests_against_language(tmp_path: Path) -> None:
    requests_language.main(["--smoke", "--json", str(tmp_path / "found.json")])
    record = read(tmp_path / "found.json")
    rows = record["rows"]
    assert set(rows) == {"prefill", "global", "auto", "beam", "generate"}
    assert record["over_global"].keys() == rows.keys() - {"global"} and record["over_auto"].keys() == {
        "beam",
        "generate",
    }
    for ratio in (*record["over_global"].values(), *record["over_auto"].values()):
        assert_spread(ratio)
    for row in rows.values():
        assert row["ms_per_call"] * row["model_calls"] == pytest.approx(row["median_ms"])
    for name in ("prefill", "global", "auto"):
        assert rows[name]["model_calls"] == 1, "one prefill and no decode step"
    assert 1 < rows["beam"]["model_calls"] < rows["generate"]["model_calls"], "forced tokens are read with a choice"
    assert rows["beam"]["places"] > rows["global"]["places"]


def sequences(body: Backbone, count: int = 9) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    vocabulary = body.model.get_input_embeddings().weight.shape[0]
    return [generator.integers(0, vocabulary, size=size).astype(np.int32) for size in generator.integers(1, 30, count)]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_rival_thinks_what_prompts_alone_think(family: str) -> None:
    body = backbone(family)
    prompts = sequences(body)
    with torch.inference_mode():
        alone = [body.base(input_ids=torch.from_numpy(one).long()[None]).last_hidden_state[0, -1] for one in prompts]
    found = padding.think(body.states_at, prompts, 64)
    np.testing.assert_allclose(found, torch.stack(alone).numpy(), atol=1e-5)


def test_the_rivals_batches_hold_every_prompt_once_and_no_more_places_than_asked_for() -> None:
    prompts = sequences(backbone("llama"))
    batches = list(padding.by_length(prompts, 64))
    assert sorted(place for batch in batches for place in batch) == list(range(len(prompts)))
    assert all(len(batch) * max(len(prompts[place]) for place in batch) <= 64 for batch in batches)
    lengths = [len(prompts[place]) for batch in batches for place in batch]
    assert lengths == sorted(lengths, reverse=True)


def test_the_rival_learns_the_answers_alone() -> None:
    made = padding.labelled([np.array([5, 6, 7, 8]), np.array([9, 0])], [2, 1])
    assert made["labels"].tolist() == [[-100, -100, 7, 8], [-100, 0, -100, -100]]
    assert made["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]


def test_places_are_counted_by_name() -> None:
    body = backbone("llama")
    prompts = [np.arange(size, dtype=np.int32) for size in (3, 5)]
    with Places(body) as count, torch.inference_mode():
        padded = count("padded", lambda given: padding.think(body.states_at, given, 64))
        packed = count("packed", lambda given: body.last_states(torch.from_numpy(given.ids[None]).long()))
        padded(prompts)
        packed(pack(prompts, 64)[0])
    body.last_states(torch.zeros(1, 4, dtype=torch.long))
    assert count.found == {"padded": 10, "packed": 5}


def test_requests_beside_the_bare_prefill(tmp_path: Path) -> None:
    request.main(["--smoke", "--threads", "1", "--json", str(tmp_path / "found.json")])
    rows = read(tmp_path / "found.json")["rows"]
    assert [(row["template"], row["batch"]) for row in rows] == [
        (t, b) for t in ("compact", "instruct") for b in (1, 4)
    ]
    for row in rows:
        contestants = {"think", "global", "auto"} | ({"returning"} if row["batch"] == 1 else set())
        assert set(row["over_bare"]) == contestants and set(row["median_ms"]) == {"bare", *contestants}
        assert row["inputs"] * row["batch"] >= 8 and row["tokens"] > row["opening"]
        for ratio in row["over_bare"].values():
            assert_spread(ratio)
