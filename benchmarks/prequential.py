"""Does staying current pay? A split is streamed in the order of time: each block is ranked first, and learnt then.

    python benchmarks/prequential.py amazon-cds --run runs/amazon-cds                # validation
    python benchmarks/prequential.py amazon-cds --run runs/amazon-cds --split test   # once, when everything is chosen
    python benchmarks/prequential.py amazon-cds --run runs/amazon-cds --block day    # learn when a day is over

The run is copied, and its data are cut back to what was known before the split. Two openings of the copy rank the same
requests with the same thoughts: `frozen` never learns, `living` gets each block by `add_interactions` after it was
ranked. A user whom the run does not know yet brings the items of the history along. `auto` is shown three times: with
everything frozen, living but for its counts, and living with counts renewed after every block. Constants, metric and
titles' vectors stay those of the run. A difference is the mean over examples of living minus frozen, with its standard
error. Writes results/prequential-NAME.json, one part for each split and kind of block.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # before transformers is loaded

import numpy as np
from numpy.typing import NDArray

from l2d import Recommender
from l2d.artifacts import read_json, write_json
from l2d.decode import Auto
from l2d.interactions import SPLITS, Dataset, Examples, Interactions, SplitName, Splits
from l2d.ranking import Decoder, Rankings
from l2d.recommender import Interaction
from l2d.run import Run
from lines import Lines
from origin import RESULTS, origin

K = 10
DAY = 86_400
PLAIN = ("global", "vote", "auto")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="for the result file")
    parser.add_argument("--run", type=Path, required=True, help="a run with a memory through train")
    parser.add_argument("--split", default="valid", choices=("valid", "test"))
    parser.add_argument("--block", default="64", help="examples that are learnt at once, or `day`")
    parser.add_argument("--first", type=int, help="only the first so many examples of the stream")
    parser.add_argument("--json", type=Path, help="result file; default benchmarks/results/prequential-NAME.json")
    options = parser.parse_args()
    made, lines = origin(), Lines()
    with tempfile.TemporaryDirectory(prefix="prequential-") as scratch:
        copy = Path(scratch) / "run"
        shutil.copytree(options.run, copy, ignore=shutil.ignore_patterns("peers", "engines"))
        examples = cut_back(Run(copy), options.split)
        examples = in_time(examples, options.first)
        lines.notice(f"{len(examples)} examples of {options.split}, learnt by {options.block}")
        part = stream(copy, examples, list(blocks(examples, options.block)), lines)
    file = options.json or RESULTS / f"prequential-{options.name}.json"
    record = read_json(file) if file.is_file() else {}
    record[f"{options.split}-{options.block}"] = part | made
    write_json(file, record)
    show(part)


def cut_back(run: Run, split: SplitName) -> Examples:
    """Takes a split, and what comes after it, out of a run's data; returns the split as it was."""
    whole = Dataset.load(run.data)
    kept = SPLITS[: SPLITS.index(split)]
    log, counts = whole.interactions, np.zeros(len(whole.interactions) + 1, dtype=np.int64)
    for name in kept:
        np.add.at(counts, whole.splits[name].start, 1)
        np.add.at(counts, whole.splits[name].end + 1, -1)
    there = np.cumsum(counts[:-1]) > 0
    place = np.concatenate([[0], np.cumsum(there)])
    users, owner = np.unique(log.user[there], return_inverse=True)
    rest = Interactions(
        tuple(log.user_ids[user] for user in users), owner.astype(np.int32), log.row[there], log.timestamp[there]
    )
    # A data set has three splits: those that are gone keep one example, the last of those that are left.
    some = {
        name: whole.splits[name] if name in kept else whole.splits[kept[-1]].take(np.array([-1])) for name in SPLITS
    }
    parts = {name: Examples(rest, place[part.start], place[part.end], part.sample) for name, part in some.items()}
    info = whole.info | {"longest_history": whole.longest_history}
    left = replace(whole, interactions=rest, splits=Splits(**parts), info=info)
    shutil.rmtree(run.data)
    run.data.mkdir()
    left.save(run.data)
    run.record(run.read_manifest(), data=left.fingerprint, files=run.checksums())
    return whole.splits[split]


def in_time(examples: Examples, first: int | None) -> Examples:
    """In the order of their times, those of one instant as the data have them."""
    return examples.take(np.argsort(examples.timestamp, kind="stable")[:first])


def blocks(examples: Examples, block: str) -> Iterator[slice]:
    """So many examples each, or one day each."""
    if block != "day":
        size = int(block)
        yield from (slice(start, min(start + size, len(examples))) for start in range(0, len(examples), size))
        return
    starts = np.flatnonzero(np.diff(examples.timestamp // DAY, prepend=-1))
    yield from (slice(*pair) for pair in zip(starts, [*starts[1:], len(examples)], strict=True))


def stream(copy: Path, examples: Examples, parts: list[slice], lines: Lines) -> dict[str, Any]:
    """Ranks each block, then learns it; the gains of every row."""
    names = [name for name in PLAIN if name != "auto" or Recommender.load(copy).calibrated]
    frozen = Recommender.load(copy)
    with Recommender.load(copy, writer=True) as living:
        rows = decoders(frozen, living, names)
        gains: dict[str, list[NDArray[np.float64]]] = {name: [] for name in rows}
        hits: dict[str, list[NDArray[np.float64]]] = {name: [] for name in rows}
        newcomers = entries = known = 0
        for part in parts:
            block = examples.take(np.arange(len(examples))[part])
            requests = living.requests(block.histories(), think=True)
            for name, decoder in decoders(frozen, living, names, rows).items():
                gain, hit = judged(decoder.rank(requests, K), block.target)
                gains[name].append(gain)
                hits[name].append(hit)
            new, asked = arriving(living, block)
            written = living.add_interactions(asked)
            newcomers, entries, known = newcomers + new, entries + written.entries, known + written.known
            living.move()
            lines.progress("examples", part.stop, len(examples))
        ndcg, hr = ({name: np.concatenate(kept) for name, kept in of.items()} for of in (gains, hits))
        counts = {"examples": len(examples), "blocks": len(parts), "entries_learnt": entries, "newcomers": newcomers}
        counts |= {"known_before": known, "entries_before": len(frozen.entries)}
    return {**counts, "rows": {name: figures(ndcg[name], hr[name]) for name in rows}, "gain": paired(names, ndcg, hr)}


def decoders(
    frozen: Recommender, living: Recommender, names: list[str], before: dict[str, Decoder] | None = None
) -> dict[str, Decoder]:
    """Rows by name; `before` are those of the last block, of which one is kept."""
    rows = {f"frozen {name}": frozen.decoder(name) for name in names}
    rows |= {f"living {name}": living.decoder(name) for name in names}
    if "auto" in names:
        rows["living auto, frozen counts"] = (before or {}).get("living auto, frozen counts") or still(living.auto)
    return rows


def still(auto: Auto) -> Auto:
    """The same decoder with the counts of now: it shares the classes, which follow the memory in place."""
    kept = Auto(auto.materials, auto.recipe)
    kept.__dict__["classes"] = auto.classes
    return kept


def arriving(run: Recommender, block: Examples) -> tuple[int, list[Interaction]]:
    """A block as interactions, those of users whom the run does not know with what they took before."""
    log, items, found, new = block.interactions, run.catalog.item_ids, [], set()
    for start, end in zip(block.start.tolist(), block.end.tolist(), strict=True):
        user = log.user_ids[log.user[end]]
        known = user in new or len(run.histories.rows(user))
        new |= set() if known else {user}
        for place in range(end if known else start, end + 1):
            found.append(Interaction(user, items[log.row[place]], int(log.timestamp[place])))
    return len(new), found


def judged(rankings: Rankings, targets: NDArray[np.int32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """NDCG and hit rate at `K` of each list, which has one target."""
    line, place = np.nonzero(rankings.rows[:, :K] == targets[:, None])
    gain, hit = np.zeros(len(targets)), np.zeros(len(targets))
    gain[line], hit[line] = 1 / np.log2(place + 2), 1.0
    return gain, hit


def figures(ndcg: NDArray[np.float64], hr: NDArray[np.float64]) -> dict[str, Any]:
    """Means, NDCG also of each quarter of the stream."""
    quarters = [float(part.mean()) for part in np.array_split(ndcg, 4)]
    return {"ndcg@10": float(ndcg.mean()), "hr@10": float(hr.mean()), "ndcg@10_by_quarter": quarters}


def paired(
    names: list[str], ndcg: dict[str, NDArray[np.float64]], hr: dict[str, NDArray[np.float64]]
) -> dict[str, dict[str, Any]]:
    """Living minus frozen on the same examples, and its standard error."""
    pairs = {name: (f"living {name}", f"frozen {name}") for name in names}
    if "auto" in names:
        pairs["auto, frozen counts"] = ("living auto, frozen counts", "frozen auto")
    found = {}
    for name, (live, still_) in pairs.items():
        found[name] = {}
        for metric, of in (("ndcg@10", ndcg), ("hr@10", hr)):
            gain = of[live] - of[still_]
            error = float(gain.std(ddof=1) / np.sqrt(len(gain)))
            quarters = [float(part.mean()) for part in np.array_split(gain, 4)]
            found[name][metric] = {"gain": float(gain.mean()), "standard_error": error, "by_quarter": quarters}
    return found


def show(part: dict[str, Any]) -> None:
    print(f"{part['examples']} examples in {part['blocks']} blocks, {part['entries_learnt']} entries learnt")
    for name, row in part["rows"].items():
        print(f"{name:28} NDCG@10 {row['ndcg@10']:.4f}  HR@10 {row['hr@10']:.4f}")
    for name, found in part["gain"].items():
        gain = found["ndcg@10"]
        quarters = " ".join(f"{value:+.4f}" for value in gain["by_quarter"])
        print(f"{name:28} NDCG@10 {gain['gain']:+.4f} +- {gain['standard_error']:.4f}  by quarter {quarters}")


if __name__ == "__main__":
    sys.exit(main())
