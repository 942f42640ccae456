"""The paper's claims, and our own, against a comparison: what was measured, and whether it holds.

A claim about quality holds where the difference of the means on the same users is not below zero by more than noise:
-.005 of HR, about one standard error of a paired difference on a thousand users.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

Record = dict[str, Any]

NOISE = 0.005
LATENT = ("global", "local", "vote")


class Claim(NamedTuple):
    """One line of the table."""

    claim: str
    measured: str
    holds: str


def figure(value: float | None, places: int = 4) -> str:
    """A share without its leading zero."""
    return "-" if value is None else f"{value:.{places}f}".replace("0.", ".", 1)


def share(value: float) -> str:
    """A share in three places."""
    return figure(value, 3)


def claims(record: Record) -> list[Claim]:
    """Every claim that the rows of a comparison can speak to."""
    return [claim for ask in CLAIMS for claim in ask(record)]


def _sampled(record: Record, name: str) -> Record:
    """A row's figures on the users that language decoders answered."""
    row = record["rows"][name]
    return row.get("sample", row)


def _has(record: Record, *names: str) -> bool:
    return all(name in record["rows"] for name in names)


def _verdict(holds: Sequence[bool]) -> str:
    return "holds" if all(holds) else "does not hold" if not any(holds) else "in part"


def faster(record: Record) -> Iterator[Claim]:
    """More than ten times faster than decoding in language space."""
    for opponent, what in (("generate", "`generate` as people use it"), ("beam", "our own beam search")):
        if _has(record, "global", opponent):
            times = {name: record["rows"][name]["latency_ms"]["p50"] for name in (*LATENT, opponent)}
            ratios = {name: times[opponent] / times[name] for name in LATENT}
            calls = record["rows"][opponent]["model_calls"]
            told = ", ".join(f"{name} {ratio:.1f}x" for name, ratio in ratios.items())
            holds = _verdict([ratio > 10 for ratio in ratios.values()])
            yield Claim(f"over 10x faster than {what}", f"{told}; {calls:.1f} model calls against 1", holds)


def as_good_as_beam(record: Record) -> Iterator[Claim]:
    """Equal or better quality than beam search on the same backbone."""
    if not _has(record, "beam", *LATENT):
        return
    for cut in (10, 20, 50):
        key = f"hr@{cut}"
        beam = _sampled(record, "beam")["metrics"][key]
        found = {name: _sampled(record, name)["metrics"][key] for name in LATENT}
        told = f"beam {share(beam)}; " + ", ".join(f"{name} {share(value)}" for name, value in found.items())
        yield Claim(f"equal or better HR@{cut} than beam", told, _verdict([v >= beam - NOISE for v in found.values()]))


def better_than(record: Record) -> Iterator[Claim]:
    """Better than an item head on the same backbone and than SASRec."""
    for opponent in ("item-head", "item-head-tuned", "sasrec"):
        if _has(record, opponent, *LATENT):
            theirs = record["rows"][opponent]["metrics"]["hr@10"]
            ours = {name: record["rows"][name]["metrics"]["hr@10"] for name in LATENT}
            told = f"{opponent} {share(theirs)}; " + ", ".join(f"{name} {share(value)}" for name, value in ours.items())
            yield Claim(f"better than {opponent} (HR@10)", told, _verdict([value > theirs for value in ours.values()]))


def sparse_items(record: Record) -> Iterator[Claim]:
    """The lead over an item head is larger on rare targets; local is better on dense items, global on sparse ones."""
    if not _has(record, "global", "local"):
        return
    slices = {name: row["slices"] for name, row in record["rows"].items()}
    parts = {"1-2": "freq_1_2", "3-5": "freq_3_5", "6+": "freq_6_more"}

    def told(*names: str) -> str:
        cells = (
            f"{n} {' / '.join(share(slices[n][part].get('hr@10', 0.0)) for part in parts.values())}" for n in names
        )
        return f"by training examples of the target ({' / '.join(parts)}): " + ", ".join(cells)

    def lead(ours: str, theirs: str, part: str) -> float:
        return float(slices[ours][part].get("hr@10", 0.0) - slices[theirs][part].get("hr@10", 0.0))

    if "item-head-tuned" in record["rows"]:
        rare, frequent = (lead("global", "item-head-tuned", part) for part in ("freq_1_2", "freq_6_more"))
        yield Claim(
            "the lead over an item head is larger on sparse items",
            told("global", "item-head-tuned"),
            _verdict([rare > frequent]),
        )
    dense, sparse = lead("local", "global", "freq_6_more"), lead("global", "local", "freq_1_2")
    yield Claim(
        "local better on dense items, global on sparse ones",
        told("local", "global"),
        _verdict([dense > 0, sparse > 0]),
    )


def less_memory(record: Record) -> Iterator[Claim]:
    """Thirty percent of the memory is still competitive."""
    points = record["curves"].get("memory", {}).get("points", [])
    if points:
        at = {(point["decoder"], point["share"]): point["hr@10"] for point in points}
        told = ", ".join(f"{name} {share(at[name, 0.3])} of {share(at[name, 1.0])}" for name in LATENT)
        holds = _verdict([at[name, 0.3] >= 0.9 * at[name, 1.0] for name in LATENT])
        yield Claim("30 % of the memory still competitive (HR@10, nine tenths kept)", told, holds)


def one_generation(record: Record) -> Iterator[Claim]:
    """Grounding one generation loses up to half at top-10."""
    if _has(record, "grounding", "global", "beam"):
        found = {name: _sampled(record, name)["metrics"]["hr@10"] for name in ("grounding", "beam", "global")}
        told = ", ".join(f"{name} {share(value)}" for name, value in found.items())
        lost = 1 - found["grounding"] / found["global"]
        yield Claim("grounding from one generation loses up to half at top-10", told, f"{lost:.0%} below global")


def calibrated(record: Record) -> Iterator[Claim]:
    """What is ours and not the paper's: auto against everything else."""
    if "auto" not in record["rows"]:
        return
    rows = record["rows"]
    times = {name: rows[name]["latency_ms"]["p50"] for name in ("auto", "global", "generate", "beam") if name in rows}
    told = ", ".join(f"{times[name] / times['auto']:.1f}x {name}" for name in times if name != "auto")
    if "generate" in times:
        holds = _verdict([times["generate"] > 10 * times["auto"]])
        yield Claim("auto: over 10x faster than `generate`", told, holds)
    if "beam" in rows:
        pairs = {
            cut: [_sampled(record, name)["metrics"][f"hr@{cut}"] for name in ("auto", "beam")] for cut in (10, 20, 50)
        }
        told = ", ".join(f"@{cut} {share(ours)} against {share(theirs)}" for cut, (ours, theirs) in pairs.items())
        yield Claim("auto: better HR than beam", told, _verdict([ours > theirs for ours, theirs in pairs.values()]))
    others = [name for name, row in rows.items() if name != "auto" and row["kind"] != "language"]
    for metric in ("hr@10", "ndcg@10"):
        best = max(others, key=lambda name: float(rows[name]["metrics"][metric]))
        ours, theirs = (rows[name]["metrics"][metric] for name in ("auto", best))
        told = f"auto {share(ours)}, the best of the others {share(theirs)} ({best})"
        claim = f"auto: better {metric.upper()} than every peer, baseline and latent decoder"
        yield Claim(claim, told, _verdict([ours > theirs]))


CLAIMS: tuple[Callable[[Record], Iterator[Claim]], ...] = (
    faster,
    as_good_as_beam,
    better_than,
    sparse_items,
    less_memory,
    one_generation,
    calibrated,
)
