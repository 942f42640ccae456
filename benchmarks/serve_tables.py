"""The blocks of docs/serving.md, from the committed results/serve-*.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from written import Record, read, table

SHAPES = ("5m", "22m", "22m-patient")
"""The last one of a server with a deadline of 30 s and batches to 256: rate before latency."""

NOT_YET = "Not run yet."


def recorded(kind: str, shapes: tuple[str, ...] = SHAPES) -> dict[str, Record]:
    """The results of one kind by shape, as far as they are there."""
    return {shape: record for shape in shapes if (record := read(f"serve-{kind}-{shape}"))}


def share(found: Mapping[str, float]) -> str:
    """Median and quartiles of a share."""
    return f"{found['median']:.0%} ({found['low']:.0%} to {found['high']:.0%})"


def throughput() -> str:
    """Served requests over the offline engine's."""
    rows = [
        [
            shape, share(record["single_over_offline"]), str(record["best"]["single"]),
            share(record["batch_over_offline_in_64s"]), f"{record['client_core']:.0%}",
        ]
        for shape, record in recorded("throughput").items()
    ]  # fmt: skip
    if not rows:
        return NOT_YET
    headings = ["backbone", "single requests", "under way", "in batches of 64, over calls of 64", "client's core"]
    return table(headings, rows)


def load() -> str:
    """Long load and overload."""
    parts = []
    for shape, record in recorded("soak").items():
        memory = record["memory"]
        parts.append(
            f"- {shape}, {record['minutes']:.0f} minutes: {record['requests']:,} requests, {record['errors']} errors, "
            f"p99 {record['p99_over_p50']:.1f} times p50. Resident memory after the warm-up changed by "
            f"{memory['last_mib'] / memory['first_mib'] - 1:+.1%}, {memory['kib_per_entry']:.1f} KiB per new entry."
        )
    for shape, record in recorded("overload").items():
        recovered = record["recovered_after_seconds"]
        parts.append(
            f"- {shape}, {record['over']:.0f} times its capacity for {record['minutes']:.0f} minutes: "
            f"{record['accepted_in_time']:.2%} of the accepted requests in time, "
            f"{record['accepted_over_capacity']:.0%} of capacity served, {record['refused']['within_50_ms']:.1%} of "
            f"the refusals within 50 ms; recovered after {'no time' if not recovered else f'{recovered} s'}."
        )
    return "\n".join(parts) or NOT_YET


def faults() -> str:
    """Kills, fuzzing, and what misbehaved."""
    parts = []
    for shape, record in recorded("kill", ("tiny", "5m")).items():
        parts.append(
            f"- {shape}: {record['kills'] + record['kills_while_starting']} kills, "
            f"{record['interactions_acknowledged']:,} interactions and {record['users_deleted']} deletions "
            f"acknowledged, {len(record['faults'])} lost, twice or left behind."
        )
    for record in recorded("fuzz", ("tiny",)).values():
        statuses = ", ".join(f"{status} {count:,}" for status, count in record["status"].items())
        parts.append(f"- {record['requests']:,} made-up requests on {record['routes']} routes: {statuses}.")
    for record in recorded("faults", ("tiny",)).values():
        scenes = record["scenes"]
        held = sum(len(scene.get("held", ())) for scene in scenes.values())
        failed = sum(len(scene.get("failed", ())) for scene in scenes.values())
        names = ", ".join(name.replace("_", " ") for name, scene in scenes.items() if "held" in scene)
        parts.append(f"- {names}: {held} statements held, {failed} did not.")
    return "\n".join(parts) or NOT_YET


BLOCKS: dict[str, Callable[[], str]] = {
    "serve-throughput": throughput,
    "serve-load": load,
    "serve-faults": faults,
}
