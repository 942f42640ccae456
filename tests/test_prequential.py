"""Test, then learn: the stream is cut off before it is learnt, ranked before it is learnt, and learnt for good."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import prequential
from l2d import Recommender
from l2d.interactions import Dataset
from l2d.run import Run


@pytest.mark.parametrize(("split", "block"), [("valid", "8"), ("test", "day")])
def test_a_stream_is_ranked_and_learnt(
    run: Path, split: str, block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, before = tmp_path / "result.json", (run / "manifest.json").read_bytes()
    options = ["--run", str(run), "--split", split, "--block", block, "--first", "30", "--json", str(result)]
    monkeypatch.setattr(sys, "argv", ["prequential.py", "shop", *options])
    prequential.main()
    part = json.loads(result.read_text())[f"{split}-{block}"]
    assert part["examples"] == 30 and part["entries_learnt"] >= 30 and part["known_before"] == 0
    assert set(part["gain"]) == {"global", "vote"} and set(part["rows"]) == {
        f"{kind} {name}" for kind in ("frozen", "living") for name in ("global", "vote")
    }
    for name in ("global", "vote"):
        gain = part["rows"][f"living {name}"]["ndcg@10"] - part["rows"][f"frozen {name}"]["ndcg@10"]
        assert gain == pytest.approx(part["gain"][name]["ndcg@10"]["gain"])
    assert (run / "manifest.json").read_bytes() == before and not (run / "live.sqlite").exists()


def test_nothing_of_the_stream_is_left_in_the_data(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    whole = Dataset.load(copy / "data")
    examples = prequential.cut_back(Run(copy), "test")
    left = Recommender.load(copy).dataset
    assert left.longest_history == whole.longest_history
    known = {
        (left.interactions.user_ids[user], row, time)
        for user, row, time in zip(
            left.interactions.user, left.interactions.row, left.interactions.timestamp, strict=True
        )
    }
    log = examples.interactions
    stream = {(log.user_ids[log.user[end]], log.row[end], log.timestamp[end]) for end in examples.end}
    assert not known & stream and len(left.splits.train) == len(whole.splits.train)


def test_blocks_cover_the_stream_in_order(run: Path) -> None:
    examples = prequential.in_time(Dataset.load(run / "data").splits.train, 100)
    assert (np.diff(examples.timestamp) >= 0).all()
    for block in ("7", "day"):
        parts = list(prequential.blocks(examples, block))
        assert [part.start for part in parts[1:]] == [part.stop for part in parts[:-1]]
        assert parts[0].start == 0 and parts[-1].stop == 100
        if block == "day":
            days = [set((examples.timestamp[part] // prequential.DAY).tolist()) for part in parts]
            assert all(len(day) == 1 for day in days) and len(set.union(*days)) == len(parts)
