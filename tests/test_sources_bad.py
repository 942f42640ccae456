"""Bad input: each kind of damage gives one error of ours that names the file, and the line where there is one."""

from __future__ import annotations

from pathlib import Path

import pytest

from l2d.errors import ArtifactMissing, ConfigError, DataError, InputError
from l2d.sources import Columns, read

ITEMS = "item_id,title\na,Alpha\nb,Beta\nc,Gamma\n"
LOG = "user_id,item_id,timestamp\nx,a,10\nx,b,20\ny,b,15\ny,c,30\nx,c,40\n"
WINDOW = "user_id,history_item_ids,item_id,timestamp,history_timestamps\n"
TRAIN = "user_id,history_item_ids,item_id,timestamp_approx\nx,a,b,100\nx,a b,c,200\n"


def put(folder: Path, **files: str | bytes) -> Path:
    """Writes files whose names have `__` for the dot."""
    for name, content in files.items():
        raw = content if isinstance(content, bytes) else content.encode()
        (folder / name.replace("__", ".")).write_bytes(raw)
    return folder


def windows(folder: Path, **changes: str | bytes) -> Path:
    files = {"train__csv": TRAIN, "valid__csv": WINDOW + "y,c b,a,3,2 2\n", "test__csv": WINDOW + "x,b c,c,4,1 2\n"}
    return put(folder, **{"items__csv": ITEMS, **files, **changes})


# Bad input: (files, options) -> place and words of the message -------------------------------------------------------

BAD: dict[str, tuple[dict[str, str | bytes], str]] = {
    "no user column": ({"log__csv": "who,item,time\n"}, r"log\.csv:1: no user column.*'who'.*--user-column"),
    "no time value": ({"log__csv": LOG.replace("y,b,15", "y,b,")}, r"log\.csv:4: a time is missing"),
    "time is no time": ({"log__csv": LOG.replace("30", "soon")}, r"log\.csv:5: .*unreadable.*soon"),
    "ambiguous date": ({"log__csv": LOG.replace("10\n", "03/04/2018\n")}, r"log\.csv:2: .*unreadable.*03/04/2018"),
    "negative time": ({"log__csv": LOG.replace("30", "-30")}, r"log\.csv:5: a time is negative"),
    "before 1970": ({"log__csv": LOG.replace("10\n", "1950-01-01\n").replace("0\n", "0-01-01\n")}, r"log\.csv:\d: "),
    "two units": ({"log__csv": LOG.replace("30", "1500000000000")}, r"log\.csv:5: .*different units"),
    "line after a cell with newlines": (
        {"log__csv": LOG.replace("x,a", '"x\n\n",a').replace("30", "no")},
        r"log\.csv:7: ",
    ),
    "too many cells": (
        {"log__csv": LOG.replace("y,b,15", "y,b,15,4,5")},
        r"log\.csv:4: .*more cells.*got 5, expected 3",
    ),
    "not UTF-8": ({"log__csv": LOG.encode().replace(b"y,c", b"y\xe9,c")}, r"log\.csv:5: the text is not UTF-8.*xe9"),
    "not UTF-8 in the header": ({"log__csv": b"\xff" + LOG.encode()}, r"log\.csv:1: the text is not UTF-8"),
    "UTF-16": ({"log__csv": LOG.encode("utf-16")}, r"log\.csv:1: the text is not UTF-8"),
    "an open quote": ({"log__csv": LOG.replace("y,c", '"y,c')}, r"log\.csv:\d: the record is malformed"),
    "a column twice": ({"log__csv": LOG.replace("timestamp", "item_id")}, r"log\.csv:1: a column name occurs twice"),
    "empty": ({"log__csv": ""}, r"log\.csv: the file is empty"),
    "blank lines only": ({"log__csv": "\n \n"}, r"log\.csv: the file is empty"),
    "only a header": ({"log__csv": "user_id,item_id,timestamp\n"}, r"log\.csv: there are no interactions"),
    "no ids": (
        {"log__csv": "user_id,item_id,timestamp\n,a,1\nx,,2\n"},
        r"log\.csv: there are no interactions.*2 records",
    ),
    "no title": ({"items__csv": "item_id,title\na,\nb,\nc,<br>\n"}, r"no interaction is left.*3 items without a title"),
    "other ids": ({"items__csv": "item_id,title\n1,A\n"}, r"items\.csv: no item of the log.*'a'.*'1'"),
    "an item twice": ({"items__csv": ITEMS + "b,Again\n"}, r"items\.csv:5: an item id occurs twice.*'b'"),
    "a title without id": ({"items__csv": ITEMS + ",Lost\n"}, r"items\.csv:5: an item has no id"),
    "no items": ({"items__csv": "item_id,title\n"}, r"items\.csv: the item file has no items"),
    "no title column": ({"items__csv": "item_id,colour\na,red\n"}, r"items\.csv:1: no title column"),
    "no parquet": ({"log__parquet": b"PAR1 or so"}, r"log\.parquet: the file cannot"),
    "JSON array": ({"log__json": '[{"user_id": 1}]'}, r"log\.json: the file is a JSON array"),
    "cut JSON": (
        {"log__jsonl": '{"user_id": 1, "item_id": "a", "timestamp": 1}\n\n{"user_id": 1,'},
        r"log\.jsonl:3: the line cannot",
    ),
    "JSON list as id": (
        {"log__jsonl": '{"user_id": [1], "item_id": "a", "timestamp": 1}'},
        r"log\.jsonl:1: 'user_id' has a value",
    ),
    "boolean id": ({"log__jsonl": '{"user_id": true, "item_id": "a", "timestamp": 1}'}, r"log\.jsonl:1: 'user_id'"),
    "a number per line": (
        {"log__jsonl": '{"user_id": 1, "item_id": "a", "timestamp": 1}\n7\n'},
        r"log\.jsonl:2: the line is no object",
    ),
    "JSON time": (
        {"log__jsonl": '\n\n{"user_id": 1, "item_id": "a", "timestamp": -1}\n'},
        r"log\.jsonl:3: a time is negative",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_logs_are_refused_by_place(tmp_path: Path, name: str) -> None:
    files, message = BAD[name]
    source = next((file.replace("__", ".") for file in files if file.startswith("log")), "log.csv")
    put(tmp_path, **{"items__csv": ITEMS, **({"log__csv": LOG} if source == "log.csv" else {}), **files})
    with pytest.raises(InputError, match=message):
        read(tmp_path / source, items=tmp_path / "items.csv", format="log")


BAD_WINDOWS = {
    "unknown item": ({"train__csv": TRAIN + "x,a z,b,300\n"}, r"train\.csv:4: .*unknown item.*'z'"),
    "unknown target": ({"test__csv": WINDOW + "x,a,z,1,1\n"}, r"test\.csv:2: .*unknown item.*'z'"),
    "times of another length": (
        {"valid__csv": WINDOW + "x,a b,c,9,8\n"},
        r"valid\.csv:2: .*differ in length.*got 1, expected 2",
    ),
    "negative time": ({"valid__csv": WINDOW + "x,a,c,-9,8\n"}, r"valid\.csv:2: a time is unreadable or negative.*-9"),
    "no target": ({"train__csv": TRAIN + "x,a,,300\n"}, r"train\.csv:4: an example has no target"),
    "no user": ({"train__csv": TRAIN + ",a,b,300\n"}, r"train\.csv:4: an example has no user"),
    "empty title": ({"items__csv": ITEMS + "d, \n"}, r"items\.csv:5: an item has no title"),
    "missing column": (
        {"valid__csv": "user_id,history\nx,a\n"},
        r"valid\.csv:1: there is no column 'history_item_ids'",
    ),
    "no examples": ({"valid__csv": WINDOW}, r"valid\.csv: the file has no examples"),
    "empty file": ({"test__csv": ""}, r"test\.csv: the file is empty"),
}


@pytest.mark.parametrize("name", BAD_WINDOWS)
def test_bad_windows_are_refused_by_place(tmp_path: Path, name: str) -> None:
    files, message = BAD_WINDOWS[name]
    with pytest.raises(DataError, match=message):
        read(windows(tmp_path, **files), format="windows")


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactMissing, match=r"nowhere\.csv is not there"):
        read(tmp_path / "nowhere.csv")
    windows(tmp_path)
    (tmp_path / "test.csv").unlink()
    with pytest.raises(ArtifactMissing, match=r"test\.csv is not there"):
        read(tmp_path)
    put(tmp_path, log__csv=LOG)
    with pytest.raises(DataError, match=r"log\.csv: the log has no titles.*--items"):
        read(tmp_path / "log.csv", format="log")
    with pytest.raises(ConfigError, match=r"no column 'buyer'.*--user-column"):
        read(tmp_path / "log.csv", format="log", columns=Columns(user="buyer"))


def test_bad_sequences(tmp_path: Path) -> None:
    put(tmp_path, items__csv=ITEMS, sequences__csv="user_id,item_ids\n7,a b c\n8,a b\n7,c a\n")
    with pytest.raises(DataError, match=r"sequences\.csv:4: a user occurs twice"):
        read(tmp_path)
    put(tmp_path, sequences__csv="user_id,item_ids\n7,a b c\n,a b\n")
    with pytest.raises(DataError, match=r"sequences\.csv:3: a sequence has no user"):
        read(tmp_path)
