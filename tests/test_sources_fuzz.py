"""Broken files: every reader gives a data set or an InputError of ours, whatever the bytes."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from l2d.errors import InputError
from l2d.interactions import Dataset
from l2d.sources import FORMATS, prepare
from scale import FUZZ, count

LOG = b"user_id,item_id,timestamp,title\n" + b"".join(
    b'u%d,i%d,%d,"Title, %d"\n' % (k % 5, k % 7, 1_400_000_000 + k, k % 7) for k in range(30)
)
JSON = b"".join(
    b'{"user_id": "u%d", "item_id": %d, "timestamp": %d, "title": "T%d"}\n' % (k % 5, k % 7, 1_400_000_000 + k, k % 7)
    for k in range(30)
)
OLD = JSON.replace(b"user_id", b"reviewerID").replace(b"item_id", b"asin").replace(b"timestamp", b"unixReviewTime")
NEW = JSON.replace(b"item_id", b"parent_asin")
META = b"".join(b'{"asin": %d, "title": "T%d"}\n' % (k, k) for k in range(7))
LITERAL = b"".join(b"{'asin': '%d', 'title': 'T%d'}\n" % (k, k) for k in range(7))
ITEMS = b"item_id,title\n" + b"".join(b"%d,T%d\n" % (k, k) for k in range(7))
WINDOW = b"user_id,history_item_ids,item_id,timestamp,history_timestamps\n1,0 1,2,9,7 8\n2,3,4,9,8\n"
LITERALS = b'user_id,history_item_title,item_title,history_item_id,item_id\n1,"[\'a\']",b,"[0, 1]",2\n2,x,y,[3],4\n'

# Files by format; the first one is damaged.
SOURCES: dict[str, dict[str, bytes]] = {
    "log": {"log.csv": LOG},
    "movielens": {
        "ratings.dat": b"".join(b"%d::%d::5::%d\n" % (k % 5, k % 7, 1_400_000_000 + k) for k in range(30)),
        "movies.dat": b"".join(b"%d::Movie %d::Drama\n" % (k, k) for k in range(7)),
    },
    "amazon-2014": {"reviews.json": OLD, "meta_x.json": LITERAL},
    "amazon-2018": {"x.json": OLD, "meta_x.json": META},
    "amazon-2023": {"x.jsonl": NEW, "meta_x.jsonl": META.replace(b"asin", b"parent_asin")},
    "d3": {
        "train.csv": LITERALS,
        "valid.csv": LITERALS,
        "test.csv": LITERALS,
        "info.txt": b"".join(b"T%d\t%d\n" % (k, k) for k in range(7)),
    },
    "windows": {"train.csv": WINDOW, "valid.csv": WINDOW, "test.csv": WINDOW, "items.csv": ITEMS},
    "sequences": {"sequences.csv": b"user_id,item_ids\n1,0 1 2 3\n2,3 4 5 6\n", "items.csv": ITEMS},
}
PLAIN = {**SOURCES, "log-jsonl": {"log.jsonl": JSON}, "items": {"items.csv": ITEMS, "log.csv": LOG}}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def survives(files: dict[str, bytes], format: str) -> Dataset | InputError:
    with tempfile.TemporaryDirectory() as folder:
        try:
            made = prepare(write(Path(folder), files), format=format)
            count("broken files", read=1)
            return made
        except InputError as error:
            assert str(error) and "\n" not in str(error)
            count("broken files", refused=1)
            return error


def cut(content: bytes, at: int, with_: bytes, length: int) -> bytes:
    at %= len(content) + 1
    return content[:at] + with_ + content[at + length :]


@pytest.mark.parametrize("name", SOURCES)
def test_undamaged_sources_prepare(name: str) -> None:
    for format in (name, "auto"):
        made = survives(SOURCES[name], format)
        assert isinstance(made, Dataset) and made.info["format"] == name, made


@pytest.mark.sized
@pytest.mark.parametrize("name", SOURCES)
@settings(max_examples=25 * FUZZ, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(content=st.binary(max_size=200))
def test_random_bytes(name: str, content: bytes) -> None:
    files = SOURCES[name]
    survives({**files, next(iter(files)): content}, name)
    survives({**files, next(iter(files)): content}, "auto")


MARKS = [b'"', b",", b"\n", b"\r", b"\x00", b"\xff", b"{", b"[", b"]", b"}", b"::", b"\t", b"-", b"'", b" ", b"\n\n"]
WORDS = [b"e99", b"nan", b"\\ud800", b'"user_id"', b"9" * 30, b"\xef\xbb\xbf", b"null", b"true", b"1.5"]
LONG = [b"1" * 5000, b"[" * 3000]
SPLINTERS = st.one_of(st.binary(max_size=6), st.sampled_from([*MARKS, *WORDS, *LONG]))


@pytest.mark.sized
@pytest.mark.parametrize("name", PLAIN)
@settings(max_examples=60 * FUZZ, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    at=st.integers(0, 4000), splinter=SPLINTERS, length=st.sampled_from([0, 1, 1, 5, 10_000]), file=st.integers(0, 3)
)
def test_mangled_files(name: str, at: int, splinter: bytes, length: int, file: int) -> None:
    files = PLAIN[name]
    chosen = list(files)[file % len(files)]
    format = name if name in FORMATS else "log"
    survives({**files, chosen: cut(files[chosen], at, splinter, length)}, format)


@pytest.mark.sized
@pytest.mark.parametrize("name", ["amazon-2014", "amazon-2018", "amazon-2023", "log", "log-jsonl"])
@settings(max_examples=15 * FUZZ, deadline=None, derandomize=True)
@given(at=st.integers(0, 500), splinter=st.binary(min_size=1, max_size=3), length=st.sampled_from([1, 10_000]))
def test_damaged_gzip(name: str, at: int, splinter: bytes, length: int) -> None:
    """A changed byte may hide in the header's name or time; what must not happen is another exception."""
    files = PLAIN[name]
    first = next(iter(files))
    rest = {other: content for other, content in files.items() if other != first}
    packed = gzip.compress(files[first], mtime=0)
    survives({**rest, f"{first}.gz": cut(packed, at, splinter, length)}, name if name in FORMATS else "log")


@pytest.mark.parametrize("name", ["amazon-2014", "amazon-2018", "amazon-2023", "log", "log-jsonl"])
def test_truncated_gzip_is_refused(name: str) -> None:
    files = PLAIN[name]
    first = next(iter(files))
    rest = {other: content for other, content in files.items() if other != first}
    packed = gzip.compress(files[first], mtime=0)
    for keep in (3, len(packed) // 2, len(packed) - 1):
        made = survives({**rest, f"{first}.gz": packed[:keep]}, name if name in FORMATS else "log")
        assert isinstance(made, InputError) and first in str(made), made
