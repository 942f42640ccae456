"""A run that lives, for tests that forget: a user whom nobody resembles is planted in it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
import polars as pl

from l2d.backbone import scratch_backbone
from l2d.catalog import Catalog
from l2d.interactions import Dataset, Interactions, split_by_time
from l2d.recommender import Recommender
from l2d.recommender.arriving import Interaction
from l2d.sources.demo import demo_world

PLANTED = "zq-planted-7731"
"""Takes items that nobody else takes, at seconds that no other interaction has."""

NEWCOMER = "zq-newcomer-4402"
"""Comes in live, and takes what PLANTED took."""

OWN = [f"own-{place}" for place in range(12)]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(Path(__file__).resolve().parents[1] / "src"), str(Path(__file__).parent)]),
    "OMP_NUM_THREADS": "1",
}


def dataset() -> Dataset:
    """The demo shop and the planted user."""
    catalog, log = demo_world(seed=3, users=60, items=120)
    titles = (*catalog.titles, *(f"Zq Relic {place} of the Hermit" for place in range(len(OWN))))
    whole = Catalog((*(f"shop-{item}" for item in catalog.item_ids), *OWN), titles)
    times = np.linspace(log.timestamp.min(), log.timestamp.max(), len(OWN)).astype(np.int64) // 1000 * 1000 + 777
    interactions = Interactions(
        (*(f"customer {user}" for user in log.user_ids), PLANTED),
        np.concatenate([log.user, np.full(len(OWN), len(log.user_ids), np.int32)]),
        np.concatenate([log.row, np.arange(len(catalog), len(whole), dtype=np.int32)]),
        np.concatenate([log.timestamp // 1000 * 1000, times]),
    )
    return Dataset(whole, interactions, split_by_time(interactions), {"format": "demo"})


def make(folder: Path, data: Dataset | None = None) -> Path:
    """A calibrated run of an untuned backbone with a memory of train and validation, `folder / "run"`."""
    data = dataset() if data is None else data
    titles = [data.catalog.titles[row] for row in data.train_rows]
    (folder / "backbone").mkdir()
    scratch_backbone("scratch:tiny", titles).save(folder / "backbone")
    run = Recommender.adopt(
        data, backbone=str(folder / "backbone"), template="compact", out=folder / "run", device="cpu"
    )
    run.build_memory(through="valid")
    run.calibrate()
    return run.path


@contextmanager
def opened(path: Path) -> Iterator[Recommender]:
    """The run's writer, once it has finished what was begun."""
    with Recommender.load(path, device="cpu", writer=True) as run:
        yield run


def shop_items(*places: int) -> list[str]:
    """Ids of items that many take."""
    return [dataset().catalog.item_ids[place] for place in places]


def enliven(path: Path, start: int = 1_750_000_000) -> None:
    """Live interactions of the planted user, of a newcomer, of an old customer and of a new one; half of them moved."""
    a, b, c = shop_items(3, 5, 8)
    early = [(PLANTED, a, 11), (NEWCOMER, OWN[2], 21), (NEWCOMER, OWN[1], 31)]
    early += [(dataset().interactions.user_ids[4], a, 0), ("guest", b, 1), ("guest", c, 2)]
    late = [(PLANTED, OWN[3], 41), (NEWCOMER, b, 51), ("guest", a, 61)]
    with opened(path) as run:
        run.add_interactions([Interaction(user, item, start + after) for user, item, after in early])
        run.move()
        run.add_interactions([Interaction(user, item, start + after) for user, item, after in late])


def haystack(path: Path) -> Iterator[tuple[str, bytes]]:
    """Everything that a run's files say: their bytes, and what tables and arrays hold once they are decoded."""
    import lance

    for file in sorted(path.rglob("*")):
        if not file.is_file():
            continue
        name, raw = file.relative_to(path).as_posix(), file.read_bytes()
        yield name, raw
        if file.suffix == ".parquet":
            frame = pl.read_parquet(BytesIO(raw))
            for column in frame.columns:
                yield f"{name}:{column}", "\n".join(map(str, frame[column].to_list())).encode()
        if file.suffix == ".npz":
            with np.load(BytesIO(raw)) as arrays:
                for array in arrays.files:
                    yield f"{name}:{array}", arrays[array].tobytes()
    for version in lance.dataset(str(path / "memory.lance")).versions():
        table = lance.dataset(str(path / "memory.lance"), version=version["version"]).to_table()
        for column in ("item_id", "user_id", "timestamp"):
            yield f"lance {version['version']}:{column}", "\n".join(map(str, table[column].to_pylist())).encode()
        thoughts = table["thought"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        yield f"lance {version['version']}:thought", thoughts.tobytes()


def found(path: Path, needles: Sequence[bytes]) -> set[str]:
    """Where one of the needles stands."""
    return {place for place, hay in haystack(path) if any(needle in hay for needle in needles)}
