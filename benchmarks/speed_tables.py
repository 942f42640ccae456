"""The blocks of docs/performance.md, from the committed results/speed-*.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from written import Record, read, table

SETS = ("amazon-cds", "amazon-games", "amazon-beauty")


def ratio(found: Mapping[str, float], digits: int = 2) -> str:
    """Median and quartiles."""
    return f"{found['median']:.{digits}f} ({found['low']:.{digits}f} to {found['high']:.{digits}f})"


def _where(record: Record) -> str:
    return f"{record['machine']['cpu']}, {record['machine']['threads']} threads"


def request() -> str:
    """Requests beside the bare prefill."""
    record = read("speed-request-amazon-cds")
    if record is None:
        return ""
    headings = ["backbone", "type", "template", "batch", "tokens", "thought", "global", "auto", "auto, returning user"]
    rows = []
    for row in record["rows"]:
        over = row["over_bare"]
        shape = row["shape"] + (", tuned" if row["tuned"] else "")
        cells = [ratio(over[name]) if name in over else "" for name in ("think", "global", "auto", "returning")]
        rows.append([shape, row["dtype"], row["template"], str(row["batch"]), f"{row['tokens']:.0f}", *cells])
    return f"{_where(record)}.\n\n{table(headings, rows)}"


def language() -> str:
    """Requests against decoding in language space."""
    rows = []
    places = [(name, kind) for name in SETS for kind in ("tuned", "22m")]
    for name, kind in places:
        record = read(f"speed-requests-{name}-{kind}")
        if record is None:
            continue
        for rival in ("generate", "beam"):
            row, one = record["rows"][rival], record["rows"]["global"]
            rows.append(
                [
                    f"{name}, {record['parameters'] / 1e6:.0f}M{'' if kind == 'tuned' else ' random'}",
                    rival,
                    ratio(record["over_global"][rival], 1),
                    ratio(record["over_auto"][rival], 1),
                    f"{row['model_calls']:.1f}",
                    f"{row['ms_per_call'] / one['median_ms']:.2f}",
                ]
            )
    return table(
        ["data, backbone", "rival", "over global", "over auto", "its model calls", "a call, in global requests"], rows
    )


def offline() -> str:
    """Thoughts per second against padded batches."""
    return _packed("offline", "one by one over packs", lambda row: ratio(row["over_packed"]["one_by_one"]))


def tuning() -> str:
    """Tuning steps against padded batches."""
    return _packed("tuning", "gradients differ by", lambda row: f"{row['differences']['gradient']:.0e}")


def _packed(kind: str, heading: str, last: Callable[[Record], str]) -> str:
    """Packs against padded batches on each data set, and one column more."""
    headings = ["data", "backbone", "template", "tokens, whole split", "tokens, sample", "padded over packs"]
    rows = []
    for name in SETS:
        record = read(f"speed-{kind}-{name}")
        for row in record["rows"] if record else ():
            tokens = [f"{row[part]['token_ratio']:.2f}" for part in ("whole", "sample")]
            described = [row["data"], f"{row['parameters'] / 1e6:.0f}M", row["template"]]
            rows.append([*described, *tokens, ratio(row["over_packed"]["padded"]), last(row)])
    return table([*headings, heading], rows)


def matrix() -> str:
    """Matrix rate of the prefill."""
    rows = []
    for kind in ("float32", "bfloat16"):
        record = read(f"speed-matrix-{kind}")
        for row in record["rows"] if record else ():
            best, profile = row["best"], row["profile"]
            rest = ", ".join(
                f"{name.removeprefix('aten::')} {share:.0%}"
                for name, share in list(profile["largest_of_the_rest"].items())[:3]
            )
            rows.append(
                [
                    f"{row['parameters'] / 1e6:.0f}M",
                    row["dtype"],
                    str(best["batch"]),
                    f"{best['share']:.0%}",
                    f"{profile['products']:.0%}",
                    f"{profile['attention']:.0%}",
                    f"{profile['rest']:.0%} ({rest})",
                ]
            )
    headings = [
        "backbone",
        "type",
        "best batch",
        "share of the product's rate",
        "time in products",
        "in attention",
        "in the rest",
    ]
    return table(headings, rows)


def search() -> str:
    """Exact search against FAISS flat and numpy."""
    record = read("speed-search")
    rows = []
    for name, found in record["tables"].items() if record else ():
        for batch in (key for key in found if key.startswith("batch")):
            for who in ("ours, float16", "ours, float32", "numpy"):
                rows.append([name, batch, who, f"{found[batch]['faster'][who]:.1f}x", f"{found['recall@10'][who]:.3f}"])
    return table(["points x width", "requests", "search", "as fast as FAISS flat", "recall@10"], rows)


def growth() -> str:
    """How times grow."""
    record = read("speed-growth")
    rows = []
    for name, line in record["lines"].items() if record else ():
        times = ", ".join(f"{size}: {times:.2f}" for size, times in line["times_the_smallest"].items())
        rows.append([name, times, f"{line['slope']:.2f}", line["meaning"]])
    return table(["line", "times the smallest", "slope", "what it means"], rows)


def peak() -> str:
    """Peak memory."""
    record = read("speed-peak")
    rows = [
        [name, f"{found['mib_per_million_entries']:.0f} MiB", f"{found['over_stored']:.2f}"]
        for name, found in (record["stages"] if record else {}).items()
    ]
    return table(["stage", "per million entries of width 256", "over the stored thoughts"], rows)


def openvino() -> str:
    """The openvino engine against eager PyTorch."""
    record = read("speed-openvino")
    rows = []
    for shape, found in (record["shapes"] if record else {}).items():
        for tokens, row in found["tokens"].items():
            over = row["single"]["over_bfloat16"]
            rows.append(
                [
                    shape,
                    tokens,
                    ratio(over["openvino"]),
                    ratio(over["float32"]) if "float32" in over else "",
                    f"{row['many_over_bfloat16']['openvino']:.2f}",
                ]
            )
    headings = ["backbone", "tokens", "int8 over eager bfloat16", "eager float32 over bfloat16", "int8, many at once"]
    return table(headings, rows)


BLOCKS: dict[str, Callable[[], str]] = {
    "speed-request": request,
    "speed-language": language,
    "speed-offline": offline,
    "speed-tuning": tuning,
    "speed-matrix": matrix,
    "speed-search": search,
    "speed-growth": growth,
    "speed-peak": peak,
    "speed-openvino": openvino,
}
