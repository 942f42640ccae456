"""What is calibrated decoding worth against each of its own ingredients, and does it find items without samples?

    python benchmarks/auto.py amazon-cds --run runs/amazon-cds               # validation; calibrates the run if need be
    python benchmarks/auto.py amazon-cds --run runs/amazon-cds --split test  # once, when everything is chosen
    python benchmarks/auto.py amazon-cds --run runs/amazon-cds --split test --beam 1000   # beam search on so many users
    python benchmarks/auto.py amazon-cds --run runs/amazon-cds --add recall  # one more row; the others stay as they are

Rows: auto; recall, which reads no counts; auto's thought alone and its counts alone; global, vote, co-occurrence. Each
is compared with auto on the same users (paired bootstrap). On the sets of `EXCLUDE_SEEN` that is done a second time
without the items of the histories.

Cold items, on the same split: a tenth of the items is withheld, which means that no entry of the memory and no count
knows them (the backbone has read their titles in tuning); auto, with the constants of the whole run, is asked again.
Writes results/auto-NAME.json, one part for each split.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # before transformers is loaded

import numpy as np

from l2d import Recommender
from l2d.artifacts import read_json, write_json
from l2d.compare import rank_in_blocks, sample
from l2d.compare.significance import mean_interval, sign_flip_p
from l2d.decode import Auto, TitleMap
from l2d.evaluate import Evaluation, evaluate
from l2d.interactions import Examples
from l2d.ranking import Decoder, Requests
from l2d.recommender.calibrating import title_thoughts
from l2d.recommender.measuring import check_split
from lines import Lines
from opponents import EXCLUDE_SEEN
from origin import RESULTS, origin

LENGTH, WITHHELD = 50, 0.1
SAME = 5e-4
"""A figure that differs by less is the same: a user or two whose near ties fall otherwise on another machine."""
ROWS = ("auto", "recall", "thought", "counts", "global", "vote", "cooccurrence")
METRICS = ("hr@10", "ndcg@10", "hr@20", "hr@50")
SLICES = ("later", "same_time", "freq_0", "freq_1_2", "freq_3_5", "freq_6_more", "repeat", "new")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="for the result file")
    parser.add_argument("--run", type=Path, required=True, help="a run with a memory")
    parser.add_argument("--split", default="valid", choices=("valid", "test"))
    parser.add_argument("--only", default=",".join(ROWS), help="rows, separated by commas; vote is slow on Beauty")
    parser.add_argument("--add", metavar="ROWS", help="rows to add to a file of results, beside nothing else")
    parser.add_argument("--beam", type=int, default=0, metavar="N", help="compare with beam search on N users, only")
    options = parser.parse_args()
    asked = (options.add or options.only).split(",")
    names = ["auto", *(name for name in asked if name != "auto")]
    lines, made = Lines(), origin()
    run = Recommender.load(options.run)
    if not run.calibrated or ("recall" in names and run.constants.recall is None):
        run.calibrate(progress=lines.progress)
    check_split(run, options.split, ["auto"])
    examples = run.dataset.splits[options.split]
    file = RESULTS / f"auto-{options.name}.json"
    record = read_json(file) if file.is_file() else {}
    if options.beam:
        some = examples.take(sample(examples, options.beam, 0))
        record[f"{options.split}-beam"] = beam(run, some, options.name in EXCLUDE_SEEN) | made
        write_json(file, record)
        print(record[f"{options.split}-beam"])
        return
    requests = run.requests(examples.histories(), think=True)
    part: dict[str, Any] = {"users": len(examples), "rows": rows(run, names, examples, requests)}
    if options.name in EXCLUDE_SEEN:
        without = replace(requests, exclude=requests.histories)
        part["rows_without_seen"] = rows(run, names, examples, without)
    fitted = {"calibration": run.constants.auto, "recall": run.constants.recall if "recall" in names else None}
    record |= {key: found.to_json() for key, found in fitted.items() if found and not (options.add and key in record)}
    if options.add:
        add(record[options.split], part, made)
        write_json(file, record)
        return
    part["cold"] = cold(run, examples, requests, lines)
    record |= {"data": options.name, options.split: part | made}
    write_json(file, record)
    for name, row in part["rows"].items():
        low, high = row["auto_minus"]["ndcg@10"][1:]
        print(
            f"{name:14}",
            "  ".join(f"{m} {row['metrics'][m]:.4f}" for m in METRICS),
            f"auto - it {low:+.4f} to {high:+.4f}",
        )
    print(part["cold"])


def add(recorded: dict[str, Any], part: dict[str, Any], made: dict[str, Any]) -> None:
    """Puts new rows after those that were recorded, each with its own origin; auto has to be what it was.

    Raises:
        SystemExit: auto's figures are others now, so that differences to it would be from two worlds.
    """
    for key in ("rows", "rows_without_seen"):
        for name, row in part.get(key, {}).items():
            if name != "auto":
                recorded[key][name] = row | made
                print(key, name, row["metrics"], row["auto_minus"])
            elif any(abs(row["metrics"][metric] - recorded[key][name]["metrics"][metric]) > SAME for metric in METRICS):
                sys.exit(f"auto is not what was recorded: {row['metrics']} instead of {recorded[key][name]['metrics']}")


def rows(run: Recommender, names: list[str], examples: Examples, requests: Requests) -> dict[str, Any]:
    """Figures of each row, and of auto minus it."""
    auto = run.auto
    own = {"thought": 1.0, "counts": 0.0}
    decoders: dict[str, Decoder] = {
        name: Auto(auto.materials, replace(auto.recipe, thought=own[name])) if name in own else run.decoder(name)
        for name in names
    }
    judged = {name: judge(run, decoder, examples, requests) for name, decoder in decoders.items()}
    return {name: described(found, judged["auto"]) for name, found in judged.items()}


def beam(run: Recommender, examples: Examples, exclude_seen: bool) -> dict[str, Any]:
    """Auto against a beam search of the same backbone: lists of 50, paired tests."""
    histories = examples.histories()
    requests = run.requests(histories, think=True, exclude=histories if exclude_seen else None)
    ours, theirs = (judge(run, run.decoder(name), examples, requests) for name in ("auto", "beam"))
    found: dict[str, Any] = {"users": len(examples), "exclude_seen": exclude_seen}
    for metric in METRICS:
        difference = ours.values(metric) - theirs.values(metric)
        generator = np.random.default_rng(0)
        interval = mean_interval(difference, generator)
        found[metric] = {
            "auto": ours.metrics[metric], "beam": theirs.metrics[metric], "interval": interval,
            "p": sign_flip_p(difference, generator),
        }  # fmt: skip
    return found


def judge(run: Recommender, decoder: Decoder, examples: Examples, requests: Requests) -> Evaluation:
    """One decoder on one split."""
    rankings = rank_in_blocks(decoder, requests, LENGTH)
    return evaluate(rankings, examples, run.catalog, run.evidence.popularity)


def described(found: Evaluation, auto: Evaluation) -> dict[str, Any]:
    """Metrics, slices, and the paired difference to auto: [mean, low, high]."""
    differences = {metric: auto.values(metric) - found.values(metric) for metric in METRICS}
    generator = np.random.default_rng(0)
    return {
        "metrics": {metric: found.metrics[metric] for metric in METRICS},
        "title_match": {metric: found.title_match[metric] for metric in METRICS},
        "slices": {name: {key: found.slices[name].get(key) for key in ("users", "hr@10", "hr@50")} for name in SLICES},
        "auto_minus": {
            metric: [float(values.mean()), *mean_interval(values, generator)] for metric, values in differences.items()
        },
    }


def cold(run: Recommender, examples: Examples, requests: Requests, lines: Lines) -> dict[str, Any]:
    """Withholds a tenth of the items that have entries, and asks auto with and without newcomers."""
    whole, recipe = run.auto.materials, run.auto.recipe
    known = np.flatnonzero(whole.items.counts > 0)
    withheld = np.zeros(len(run.catalog), dtype=bool)
    withheld[np.random.default_rng(0).choice(known, int(len(known) * WITHHELD), replace=False)] = True
    materials = whole.without(withheld)
    thoughts = title_thoughts(run, range(len(run.catalog)), lambda done, total: lines.progress("titles", done, total))
    materials = replace(materials, text=TitleMap.fit(thoughts, materials.items)(thoughts))
    target = withheld[examples.target]
    found: dict[str, Any] = {"items": int(withheld.sum()), "cold_targets": int(target.sum())}
    for given in dict.fromkeys((0.0, recipe.newcomer, 1.0, 5.0, 20.0)):
        judged = judge(run, Auto(materials, replace(recipe, newcomer=given)), examples, requests)
        found[f"newcomer {given:g}"] = {
            f"{which} {metric}": float(judged.values(metric)[part].mean())
            for which, part in (("cold", target), ("warm", ~target))
            for metric in ("hr@10", "ndcg@10", "hr@50")
        }
    return found


if __name__ == "__main__":
    main()
