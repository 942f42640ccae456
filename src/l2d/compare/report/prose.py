"""What the figures say in plain words: who wins, who loses, and how it was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from l2d.compare.report.markup import Markup, join, tag
from l2d.compare.report.reading import LEVEL, METRIC, Record, Row, find, mapping, number
from l2d.compare.report.wording import amount, count, listed, rate, signed
from l2d.evaluate import COVERAGE


def in_short(record: Record) -> Markup:
    """The findings as a list; what beats the first row is said before what it beats."""
    sentences = [_quality(record), *_tested(record), *_speed(record), *_later(record)]
    return tag("ul", *(tag("li", sentence) for sentence in sentences if sentence), class_="findings")


def measured(record: Record) -> Markup:
    """How each kind of figure came about, as far as the record knows."""
    terms = {
        "Users": _users(record),
        "Quality": (
            f"The whole catalogue is ranked and {_left_out(record)} left out. HR@10 is the share of users whose next "
            "item is among the first ten, NDCG@10 the same with less credit further down. By title, any item that has "
            "the target's title counts."
        ),
        "Intervals": (
            f"{COVERAGE:.0f} % bootstrap intervals: users are drawn anew many times, and so much of the means lies "
            "inside. They cover chance among users, not chance in training; rows of several seeds give the standard "
            "deviation between seeds beside it."
        ),
        "Differences": _differences(record),
        "Latency": _latency(record),
        "Load": (
            "Requests per second at the best of several batch sizes. MiB is what a row holds while it answers, its "
            "language model included."
        ),
        **dict(_run(record)),
    }
    return tag("dl", *(join(tag("dt", term), tag("dd", words)) for term, words in terms.items() if words))


def _quality(record: Record) -> str | None:
    first = record.first
    quality, span = first.number("metrics", METRIC), first.interval()
    if quality is None:
        return None
    between = f" ({100 * span[0]:.1f} to {100 * span[1]:.1f})" if span else ""
    return f"{first.name} has the next item among its first ten for {100 * quality:.1f} % of the users{between}."


def _tested(record: Record) -> Iterator[str]:
    first = record.first.name
    verdicts: dict[str, list[Row]] = {"better": [], "worse": [], "open": []}
    for row in record.rows:
        if (verdict := row.verdict()) is not None:
            verdicts[verdict].append(row)
    if not any(verdicts.values()):
        return
    better = _with_differences(verdicts["better"])
    yield f"In HR@10 {first} loses to {better}." if better else f"Nothing here is found to beat {first} in HR@10."
    if worse := _with_differences(verdicts["worse"]):
        yield f"{first} beats {worse}."
    if undecided := listed([f"{row.name} ({signed(_gap(row))})" for row in verdicts["open"]]):
        yield f"Not told apart from {first}: {undecided}."


def _with_differences(rows: Sequence[Row]) -> str:
    return listed([f"{row.name} by {rate(abs(_gap(row)))}" for row in rows])


def _gap(row: Row) -> float:
    return number(row.difference(), "difference") or 0.0


def _speed(record: Record) -> Iterator[str]:
    own = record.first.number("latency_ms", "p50")
    if not own:
        return
    timed = [(row, row.number("latency_ms", "p50") or 0.0) for row in record.rows if row is not record.first]
    if record.beam and (beam := record.beam.number("latency_ms", "p50")) and record.beam is not record.first:
        faster = f"{amount(beam / own)} times as fast as" if beam >= own else f"{amount(own / beam)} times as slow as"
        yield f"{record.first.name} answers one request in {amount(own)} ms, {faster} beam."
    if quicker := [f"{row.name} ({amount(ms)} ms)" for row, ms in timed if 0 < ms < own]:
        yield f"Faster than {record.first.name}: {listed(quicker)}."


def _later(record: Record) -> Iterator[str]:
    """On later targets the order of a file helps nobody: the figure that a careful reader asks for."""
    found = [(row, value) for row in record.shared if (value := row.number("slices", "later", METRIC)) is not None]
    own = next((value for row, value in found if row.name == record.first.name), None)
    if own is None or len(found) < 2:
        return
    row, best = max(found, key=lambda pair: pair[1])
    rest = "the best of all rows" if row.name == record.first.name else f"the best row is {row.name} with {rate(best)}"
    yield f"On targets later than the history's last item {record.first.name} reaches HR@10 {rate(own)}; {rest}."


def _users(record: Record) -> str:
    users, sample = number(record.data, "users"), number(record.data, "sample_users")
    split = f"{record.data.get('split')} split" if record.data.get("split") else "split"
    whole = f"{count(users)} examples of the {split}." if users else ""
    if not record.mixed or not sample:
        return whole
    seed = number(record.data, "seed")
    drawn = f" drawn with seed {count(seed)}" if seed is not None else ""
    return (
        f"{whole} Language decoders, which cost most, are judged on {count(sample)} of them{drawn}; where rows are "
        "drawn side by side, all are shown on those same users."
    )


def _left_out(record: Record) -> str:
    return "only what the history holds is" if record.excludes_seen else "nothing is"


def _differences(record: Record) -> str:
    if not any(row.difference() for row in record.rows):
        return ""
    return (
        f"Each row minus {record.first.name}, user by user, on the users that both answered. The interval is a paired "
        "bootstrap. p is how often a difference so large arises when the signs of the users' differences are drawn by "
        f"lot, corrected by Holm's method for the number of rows; below {rate(LEVEL, 2)} a row is called better or "
        "worse, above it the question is open."
    )


def _latency(record: Record) -> str:
    timed = {row.number("timed") for row in record.rows} - {None}
    if not any(row.number("latency_ms", "p50") is not None for row in record.rows):
        return ""
    each = f"{listed([count(number) for number in sorted(filter(None, timed))], 'or')} " if timed else ""
    return (
        f"{each}single requests, one at a time, all rows in turn on the same inputs, so that a change of the machine's "
        "pace meets all alike. p50 is the median, p95 what 95 % stay under; the parts are means. Ratios carry over to "
        "other machines better than milliseconds do."
    )


def _run(record: Record) -> Iterator[tuple[str, str]]:
    run = mapping(record.data.get("run"))
    backbone = mapping(run.get("backbone"))
    size = number(backbone, "parameters")
    words = [str(backbone[key]) for key in ("name", "revision", "dtype") if backbone.get(key)]
    if words:
        yield "Backbone", ", ".join(words) + (f", {count(size)} parameters" if size else "")
    if items := number(run, "items"):
        entries = number(run, "entries")
        yield "Catalogue", f"{count(items)} items" + (f", {count(entries)} entries in the memory" if entries else "")
    if fitted := mapping(run.get("fitted")):
        yield "Chosen on validation", "; ".join(f"{name}: {_settings(found)}" for name, found in fitted.items())
    if machine := machine_words(record):
        yield "Machine", machine
    if versions := mapping(run.get("versions")):
        yield "Versions", ", ".join(f"{name} {version}" for name, version in versions.items())
    if run.get("date"):
        yield "Date", str(run["date"])


def _settings(found: object) -> str:
    return ", ".join(f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
                     for name, value in mapping(found).items())  # fmt: skip


def machine_words(record: Record) -> str:
    """The machine in a few words; empty where the record does not say."""
    machine = mapping(find(record.data, "run", "machine"))
    parts = [str(machine[key]) for key in ("gpu", "cpu") if machine.get(key)]
    threads = number(machine, "threads")
    return ", ".join(parts + ([f"{count(threads)} thread{'s' if threads > 1 else ''}"] if threads else []))
