"""What all tests share: one thread, no network, real data where it is, and the figures of a full-size run."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

# Read by OpenMP, Polars and the tokenizers when they are first imported, which is after this file.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("POLARS_MAX_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with amazon-cds, amazon-games, amazon-beauty and d3-layout-sample: $L2D_DATA, or ../shared/data."""
    folder = Path(os.environ.get("L2D_DATA") or ROOT.parent / "shared" / "data")
    if not (folder / "amazon-cds").is_dir():
        pytest.skip(f"no real data in {folder}: set L2D_DATA to the folder that holds amazon-cds")
    return folder


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small shop's log, and `data` prepared from it by the program."""
    from shop import ok, write_shop

    folder = tmp_path_factory.mktemp("shop")
    write_shop(folder)
    ok("prepare", folder / "interactions.csv", "--items", folder / "items.csv", "--out", folder / "data")
    return folder


@pytest.fixture(scope="session")
def run(shop: Path) -> Path:
    """A run of the shop with its memory, made by the program; tests leave it as it is."""
    from shop import ok

    out = shop / "run"
    ok("tune", shop / "data", "--backbone", "scratch:tiny", "--epochs", 1, "--out", out)
    ok("memory", "build", out)
    return out


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Writes the figures, where a file for them is named; a failure leaves the earlier ones."""
    path = os.environ.get("L2D_FIGURES")
    if path and exitstatus == 0:
        sys.path.insert(0, str(ROOT / "benchmarks"))
        from origin import origin
        from scale import FIGURES

        Path(path).write_text(json.dumps({"counts": dict(sorted(FIGURES.items())), **origin()}, indent=2) + "\n")
