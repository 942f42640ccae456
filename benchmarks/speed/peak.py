"""Speed table "peak": the most memory that building, loading and serving take, against the size of the data.

    python benchmarks/speed/peak.py [--entries 100000 1000000] [--width 256]

A generated memory is written, loaded, and served from in processes of their own, which report the most they ever held
less what they held before they began. What grows with the data is the difference between two sizes, stated per million
entries and as a multiple of the stored thoughts, so that fixed costs (libraries, buffers) fall out.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import lance  # noqa: F401  # before the first process begins, as all libraries are
import numpy as np
from numpy.typing import NDArray

from l2d.catalog import Catalog
from l2d.decode import Vote
from l2d.memory import Entries, ItemVectors, Memory, aggregate
from l2d.memory.nearest.products import fastest
from l2d.ranking import Requests
from turns import arguments, keep

SHARD = 1 << 13
MIB = 1 << 20
STAGES = ("build", "load", "serve")
REQUESTS = 32


def resident(name: str) -> int:
    """VmRSS or VmHWM of this process, in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"skipped: /proc/self/status does not say {name}")


def drawn(n: int, width: int, seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((n, width), dtype=np.float32)


def catalog_of(entries: int) -> Catalog:
    return Catalog.from_titles([f"title {row}" for row in range(max(10, entries // 10))])


def build(path: Path, entries: int, width: int) -> None:
    """Appends generated thoughts, shard by shard, as a build does."""
    memory = Memory.create(path, width=width)
    for start in range(0, entries, SHARD):
        samples = np.arange(start, min(start + SHARD, entries))
        ids = [str(sample % max(10, entries // 10)) for sample in samples.tolist()]
        users = [f"user {sample % 1000}" for sample in samples.tolist()]
        memory.append(drawn(len(samples), width, start), ids, users, samples, samples)
    memory.finish()


def load(path: Path, entries: int, _: int) -> tuple[Entries, ItemVectors]:
    """Opens the memory and brings it into working form, item vectors included."""
    catalog = catalog_of(entries)
    held = Memory.open(path).entries(catalog)
    return held, aggregate(held, len(catalog))


def serve(path: Path, entries: int, width: int) -> None:
    """Answers requests of vote, alone and together."""
    held, items = load(path, entries, width)
    thoughts, nothing = drawn(REQUESTS, width, 1), np.empty(0, np.int32)
    vote = Vote(held, items, 200, 100.0)
    for batch in (1, REQUESTS):
        vote.rank(Requests([nothing] * batch, thoughts[:batch]), 10)


def stage(name: str, path: Path, entries: int, width: int) -> int:
    """Bytes that one stage takes at most, in a process of its own."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:  # what was imported is there, and nothing of it was used before
        fastest(1), fastest(REQUESTS)
        before = resident("VmRSS")
        {"build": build, "load": load, "serve": serve}[name](path, entries, width)
        os.write(writing, str(resident("VmHWM") - before).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        found = answer.read()
    if os.waitpid(child, 0)[1] or not found:
        raise SystemExit(f"{name} of {entries:,} entries failed")
    return int(found)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--entries", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--width", type=int, default=256)
    options = parser.parse_args()
    if options.smoke:
        options.entries, options.width = [1000, 5000], 16
    record: dict[str, Any] = {"width": options.width, "stored_bytes": {}, "stages": {name: {} for name in STAGES}}
    with tempfile.TemporaryDirectory() as folder:
        for entries in options.entries:
            record["stored_bytes"][str(entries)] = entries * options.width * 2
            for name in STAGES:
                found = stage(name, Path(folder) / f"{entries}.lance", entries, options.width)
                record["stages"][name][str(entries)] = found
    small, large = options.entries[0], options.entries[-1]
    for name, peaks in record["stages"].items():
        each = (peaks[str(large)] - peaks[str(small)]) / (large - small)
        peaks["mib_per_million_entries"] = each * 1e6 / MIB
        peaks["over_stored"] = each / (options.width * 2)
        held = ", ".join(f"{entries:,} entries {peaks[str(entries)] / MIB:.0f} MiB" for entries in options.entries)
        print(
            f"{name}: {held}; {peaks['mib_per_million_entries']:.0f} MiB per million entries, "
            f"{peaks['over_stored']:.2f} times the stored thoughts"
        )
    keep("peak", record, options)


if __name__ == "__main__":
    sys.exit(main())
