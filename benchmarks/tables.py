"""Writes the tables of README.md and of docs/results.md, performance.md and serving.md from the committed results.

python benchmarks/tables.py            # rewrites the marked blocks
python benchmarks/tables.py --check    # exit code 1 where a block is not what the results say
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable

import serve_tables
import speed_tables
from claims import claims, figure
from l2d.compare.report.reading import Row
from origin import ROOT
from written import Record, read, table

SETS = {"amazon-cds": "Amazon CDs", "amazon-games": "Amazon Games", "amazon-beauty": "Amazon Beauty"}


def recorded(kind: str) -> dict[str, Record]:
    """The results of one kind by data set, as far as they are there."""
    return {name: record for name in SETS if (record := read(f"{kind}-{name}"))}


def quality() -> str:
    """One section per data set: what was run, what came out."""
    return "\n\n".join(_quality(name, record) for name, record in recorded("quality").items())


def _quality(name: str, record: Record) -> str:
    options, seconds, fitted, test = (record[key] for key in ("options", "seconds", "fitted", "test"))
    asked = [f"python benchmarks/quality.py {name}"]
    asked += [f"--epochs {options['epochs']}"] if options["epochs"] != 16 else []
    asked += [f"--max-title-tokens {record['max_title_tokens']}"] if record["max_title_tokens"] != 48 else []
    threads = record["machine"]["threads"]
    part = " (the part after a checkpoint that it went on from)" if record.get("resumed") else ""
    text = (
        f"## {SETS[name]}\n\n`{' '.join(asked)}`: `{record['backbone']}`, {options['epochs']} epochs, "
        f"{test['users']:,} test examples, full ranking, nothing excluded. {record['machine']['cpu']}, "
        f"{threads} threads: tuning {seconds['tune'] / 60:.0f} min{part}, memory build with fit "
        f" {seconds['memory build'] / 60:.1f} min, all together {sum(seconds.values()) / 60:.0f} min. Fitted on "
        f"validation: local M = {fitted['local_neighbours']}, vote M = {fitted['vote_neighbours']}."
    )
    headings = ["decoder", "HR@10", "NDCG@10", "HR@50", "HR@10 by title", "same time / later", "validation HR@10"]
    rows = [_judged(name, row, record["valid"]["decoders"][name]) for name, row in test["decoders"].items()]
    return f"{_wrapped(text)}\n\n{table(headings, rows)}"


def _judged(name: str, test: Record, valid: Record) -> list[str]:
    metrics, (low, high) = test["metrics"], test["intervals"]["hr@10"]
    parts = [figure(test["slices"][part].get("hr@10")) for part in ("same_time", "later")]
    return [
        name,
        f"{figure(metrics['hr@10'])} ± {figure((high - low) / 2)}",
        figure(metrics["ndcg@10"]),
        figure(metrics["hr@50"]),
        figure(test["title_match"]["hr@10"]),
        " / ".join(parts),
        figure(valid["metrics"]["hr@10"]),
    ]


def overview() -> str:
    """Test HR@10 / NDCG@10 of every data set side by side."""
    records = recorded("quality")
    decoders = next(iter(records.values()))["test"]["decoders"]
    rows = []
    for decoder in decoders:
        cells = [records[name]["test"]["decoders"][decoder]["metrics"] for name in records]
        rows.append([decoder, *(_pair(m) for m in cells)])
    judged = [record.get("test") for record in (read(f"auto-{name}") or {} for name in records)]
    if any(judged):
        for place, name in enumerate(("auto", "recall"), start=3):
            found = [(part or {"rows": {}})["rows"].get(name) for part in judged]
            rows.insert(place, [name, *(_pair(row["metrics"]) if row else "" for row in found)])
    return table(["test HR@10 / NDCG@10", *(SETS[name] for name in records)], rows)


def _pair(metrics: Record) -> str:
    return f"{figure(metrics['hr@10'], 3)} / {figure(metrics['ndcg@10'], 3)}"


def opponents() -> str:
    """One section per data set: every row, and the paper's claims."""
    return "\n\n".join(_opponents(name, record) for name, record in recorded("opponents").items())


def _opponents(name: str, record: Record) -> str:
    asked = f"python benchmarks/opponents.py {name} --run RUN"
    asked += f" --users {record['sample_users']}" if record["sample_users"] != 1000 else ""
    asked += f" --only {','.join(record['only'])}" if record["only"] else ""
    machine = record["machine"]
    seen = "; the items of each history are excluded" if record.get("exclude_seen") else ""
    text = (
        f"### {SETS[name]}\n\n`{asked}`: {record['users']:,} {record['split']} users, "
        f"{record['sample_users']:,} of them (drawn with seed {record['seed']}) for decoders in language space{seen}; "
        f"milliseconds are medians of single requests in turn, {machine['cpu']}, {machine['threads']} of "
        f"{machine['cores']} cores. The same as a page with plots: "
        f"[opponents-{name}.html](opponents-{name}.html)."
    )
    headings = ["", "HR@10", "NDCG@10", "on the sample", "later HR@10", "ms", "calls", "requests/s", "vs first (p)"]
    rows = [[name, *_opponent(row)] for name, row in record["rows"].items()]
    told = table(["claim", "measured", ""], claims(record))
    return f"{_wrapped(text)}\n\n{table(headings, rows)}\n\n{told}"


def _opponent(row: Record) -> list[str]:
    versus, (low, high) = row["versus"].get("hr@10"), row["intervals"]["hr@10"]
    return [
        f"{figure(row['metrics']['hr@10'], 3)} ± {figure((high - low) / 2, 3)}",
        figure(row["metrics"]["ndcg@10"], 3),
        figure(row.get("sample", row)["metrics"]["hr@10"], 3),
        figure(row["slices"]["later"].get("hr@10"), 3),
        f"{row['latency_ms']['p50']:.1f}",
        f"{row['model_calls']:.1f}",
        f"{row['requests_per_second']:,.0f}",
        "" if versus is None else f"{versus['difference']:+.3f} ({versus['p_holm']:.3f})",
    ]


def rivals() -> str:
    """Every row of the comparisons side by side, on the users that all of them answered."""
    records = recorded("opponents")
    names = dict.fromkeys(name for record in records.values() for name in record["rows"])
    headings = ["", *(f"{SETS[name]} {figure}" for name in records for figure in ("HR@10 / NDCG@10", "ms"))]
    rows = [[name, *(cell for record in records.values() for cell in _rival(record, name))] for name in names]
    return table(headings, rows)


def _rival(record: Record, name: str) -> tuple[str, str]:
    row = record["rows"].get(name)
    if row is None:
        return "", ""
    metrics = row.get("sample", row)["metrics"]
    told = {"better": " ▲", "worse": " ▼"}.get(Row(name, row["kind"], row).verdict() or "", "")
    return f"{figure(metrics['hr@10'], 3)} / {figure(metrics['ndcg@10'], 3)}{told}", f"{row['latency_ms']['p50']:.1f}"


def verdicts() -> str:
    """The paper's claims on every data set, in a word each."""
    records = recorded("opponents")
    told = {name: {claim.claim: claim for claim in claims(record)} for name, record in records.items()}
    asked = dict.fromkeys(claim for found in told.values() for claim in found)
    rows = [
        [claim, *(found[claim].holds if claim in found else "not measured" for found in told.values())]
        for claim in asked
    ]
    return table(["claim", *(SETS[name] for name in records)], rows)


def seeds() -> str:
    """Means over trainings with several seeds."""
    parts = []
    for name, record in recorded("seeds").items():
        metrics = list(next(iter(record["rows"].values())))
        rows = [
            [row, *(f"{figure(m['mean'])} ± {figure(m['deviation'])}" for m in found.values())]
            for row, found in record["rows"].items()
        ]
        parts.append(f"{SETS[name]}, seeds {record['seeds']}:\n\n" + table(["", *map(str.upper, metrics)], rows))
    return "\n\n".join(parts) or "Not run yet."


COLD = ("cold hr@10", "cold hr@50", "warm hr@10", "warm hr@50", "warm ndcg@10")
"""Figures of withheld items, and of the others."""


def auto() -> str:
    """Auto against its ingredients, what it loses without each, and what it does for items without samples."""
    return "\n\n".join(_auto(name, record) for name, record in recorded("auto").items()) or "Not run yet."


def _auto(name: str, record: Record) -> str:
    splits = [split for split in ("valid", "test") if split in record]
    parts = [f"### auto on {SETS[name]}"]
    for key, told in (("rows", ""), ("rows_without_seen", ", the items of each history excluded")):
        if key not in record[splits[0]]:
            continue
        headings = [f"HR@10 / NDCG@10 / HR@50{told}", *splits, *(f"auto minus it, {split}" for split in splits)]
        rows = [
            [row, *(_reached(record[split][key][row]) for split in splits),
             *(_ahead(record[split][key][row], row) for split in splits)]
            for row in record[splits[0]][key]
        ]  # fmt: skip
        parts.append(table(headings, rows))
    parts += [
        part for key, name in (("calibration", "auto"), ("recall", "recall")) for part in _fitted(record, key, name)
    ]
    beams = [[split, metric.upper(), figure(one["auto"]), figure(one["beam"]),
              "{:+.4f} to {:+.4f}".format(*one["interval"]), f"{one['p']:.4f}"]
             for split in splits if f"{split}-beam" in record
             for metric, one in record[f"{split}-beam"].items() if isinstance(one, dict) and "beam" in one]  # fmt: skip
    if beams:
        users = record[f"{beams[0][0]}-beam"]["users"]
        parts.append(table([f"{users:,} users", "", "auto", "beam", "auto - beam", "p"], beams))
    last = record[splits[-1]]
    row = last["rows"]["auto"]
    cells = [[part, f"{found['users']:,}", figure(found["hr@10"]), figure(found["hr@50"])]
             for part, found in row["slices"].items() if found["users"]]  # fmt: skip
    parts.append(table([f"auto on {splits[-1]}, targets", "examples", "HR@10", "HR@50"], cells))
    cold = last["cold"]
    parts.append(
        table(
            [
                f"{cold['items']} items withheld, {cold['cold_targets']} targets in {splits[-1]}",
                "HR@10 of these",
                "HR@50 of these",
                "HR@10 of others",
                "HR@50 of others",
                "NDCG@10 of others",
            ],
            [
                [key, *(figure(value[metric]) for metric in COLD)]
                for key, value in cold.items()
                if isinstance(value, dict)
            ],
        )
    )
    return "\n\n".join(parts)


def _fitted(record: Record, key: str, decoder: str) -> list[str]:
    """The constants of a decoder, and what it loses without each of its ingredients."""
    if key not in record:
        return []
    recipe, ndcg = record[key]["recipe"], record[key]["ndcg"]
    constants = ", ".join(f"{name} {'none' if value is None else f'{value:g}'}" for name, value in recipe.items())
    told = _wrapped(
        f"Fitted for {decoder}: {constants}. Constants fitted on half of the users reach NDCG@10 "
        f"{figure(record[key]['held_out'])} on the other half."
    )
    lost = [
        [row, figure(value), "" if row == decoder else f"{value - ndcg[decoder]:+.4f}"] for row, value in ndcg.items()
    ]
    return [told, table(["fitting sample", "NDCG@10", "difference"], lost)]


def _reached(row: Record) -> str:
    return " / ".join(figure(row["metrics"][metric]) for metric in ("hr@10", "ndcg@10", "hr@50"))


def _ahead(row: Record, name: str) -> str:
    if name == "auto":
        return ""
    return "; ".join(
        f"{mean:+.4f} ({low:+.4f} to {high:+.4f})"
        for mean, low, high in (row["auto_minus"][metric] for metric in ("hr@10", "ndcg@10"))
    )


def robustness() -> str:
    """What the kill and fuzz tests counted."""
    record = read("robustness")
    if record is None:
        return "Not run yet."
    counts = record["counts"]
    rows = [
        [name, ", ".join(f"{key.replace('_', ' ')} {value:,}" for key, value in counts[name].items())]
        for name in counts
    ]
    return table(["test", "counted"], rows)


def prepare_memory() -> str:
    """What preparing a large log takes."""
    record = read("prepare_memory")
    assert record is not None
    return _wrapped(
        f"{record['rows'] / 1e6:.0f} million interactions, {record['users']:,} users, {record['items']:,} items as "
        f"{record['format'].upper()} ({record['log_bytes'] / 1e6:.0f} MB): peak {record['peak_rss_gib']:.2f} GiB of "
        "resident memory."
    )


def _wrapped(text: str, width: int = 120) -> str:
    paragraphs = []
    for paragraph in text.split("\n\n"):
        lines: list[str] = [""]
        for word in paragraph.split():
            if len(lines[-1]) + len(word) + 1 > width:
                lines.append("")
            lines[-1] = f"{lines[-1]} {word}".strip()
        paragraphs.append("\n".join(lines))
    return "\n\n".join(paragraphs)


def prequential() -> str:
    """A living memory over a frozen one, test and learn in turn."""
    names = ("global", "vote", "auto", "auto, frozen counts")
    rows = []
    for title in ("amazon-cds", "amazon-games"):
        streams = read(f"prequential-{title}") or {}
        for stream in ("valid-64", "test-64"):
            if stream not in streams:
                continue
            gains = [streams[stream]["gain"][name]["ndcg@10"] for name in names]
            whole = [streams[stream]["rows"][f"{side} auto"]["ndcg@10"] for side in ("frozen", "living")]
            cells = [f"{gain['gain']:+.4f} ± {gain['standard_error']:.4f}" for gain in gains]
            rows.append([f"{title.removeprefix('amazon-')}, {stream.removesuffix('-64')}", *cells,
                         " to ".join(f"{value:.4f}" for value in whole)])  # fmt: skip
    return table(["stream", *names, "auto, NDCG@10"], rows)


BLOCKS: dict[str, Callable[[], str]] = {
    "quality": quality,
    "overview": overview,
    "opponents": opponents,
    "rivals": rivals,
    "verdicts": verdicts,
    "seeds": seeds,
    "auto": auto,
    "robustness": robustness,
    "prepare-memory": prepare_memory,
    "prequential": prequential,
    **speed_tables.BLOCKS,
    **serve_tables.BLOCKS,
}
"""What stands between <!-- results:NAME --> and <!-- /results:NAME -->."""


def rewritten(text: str) -> str:
    """A document with its blocks made from the results."""
    for name, block in BLOCKS.items():
        marks = (f"<!-- results:{name} -->", f"<!-- /results:{name} -->")
        pattern = re.compile(f"{marks[0]}\n.*?{marks[1]}", re.DOTALL)
        text = pattern.sub(lambda _, made=block, ends=marks: f"{ends[0]}\n{made()}\n{ends[1]}", text)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args()
    stale = []
    documents = (ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in ("results", "performance", "serving")))
    for path in documents:
        before = path.read_text(encoding="utf-8")
        after = rewritten(before)
        if after != before:
            stale.append(path.name)
            if not options.check:
                path.write_text(after, encoding="utf-8")
    print("not what the results say: " + ", ".join(stale) if stale and options.check else f"rewritten: {stale}")
    sys.exit(1 if stale and options.check else 0)


if __name__ == "__main__":
    main()
