"""A file of requests, line by line: every fault is named with its file and line before anything is answered."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from l2d.errors import ConfigError, DataError, UnknownItem

if TYPE_CHECKING:
    from l2d.recommender import RecommendRequest

KEYS = ("history", "k", "exclude", "allow", "filter")
EXPECTED = '{"history": [...], "k": 10, "exclude": [...], "allow": [...], "filter": {...}}'


def read_requests(
    path: Path,
    *,
    k: int,
    check: Callable[[Sequence[str | int]], object],
    narrow: Callable[[Mapping[str, Any]], object],
) -> list[RecommendRequest]:
    """Reads JSON lines; `-` is stdin, blank lines are passed over.

    Args:
        path: the file.
        k: list length of a line that names none.
        check: raises `UnknownItem` for ids or titles that nobody knows.
        narrow: raises `ConfigError` for filters that cannot be applied.

    Raises:
        DataError: a line that is no request, or no line at all.
        UnknownItem: a line names an unknown item.
        ConfigError: a line's filter cannot be applied.
    """
    made = []
    for number, text in _lines(path):
        request = _request(path, number, text, k)
        try:
            for items in (request.history, request.exclude, request.allow or ()):
                check(items)
            narrow(request.filter or {})
        except (ConfigError, UnknownItem) as error:
            raise type(error)(
                error.what, got=error.got, expected=error.expected, cure=error.cure, file=path, line=number
            ) from error
        made.append(request)
    if not made:
        raise DataError("there are no requests", expected=f"lines like {EXPECTED}", file=path)
    return made


def read_condition(text: str) -> dict[str, Any]:
    """A filter given as JSON.

    Raises:
        ConfigError: it is no JSON object.
    """
    try:
        condition = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        condition = error
    if not isinstance(condition, dict):
        raise ConfigError(
            "the filter is no JSON object", got=text[:60], expected='{"brand": "Sony", "price": {"lt": 20}}',
            cure="put it into single quotes",
        )  # fmt: skip
    return condition


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Line numbers and texts of the lines that hold something."""
    try:
        raw = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise DataError("the requests cannot be read", got=error.strerror, cure="check the path", file=path) from error
    for number, line in enumerate(raw.split(b"\n"), start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise DataError(
                "a line is not UTF-8", got=error.reason, cure="save it as UTF-8", file=path, line=number
            ) from error
        if text:
            yield number, text


def _request(path: Path, number: int, text: str, k: int) -> RecommendRequest:
    from l2d.recommender import RecommendRequest

    def refuse(what: str, got: object) -> DataError:
        return DataError(what, got=got, expected=EXPECTED, cure="mend the line", file=path, line=number)

    try:
        record = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise refuse("a request is not JSON", error) from error
    if not isinstance(record, dict) or "history" not in record:
        raise refuse("a request has no history", text[:60])
    if strange := [key for key in record if key not in KEYS]:
        raise refuse("a request has an unknown key", repr(strange[0]))
    length = record.get("k", k)
    if isinstance(length, bool) or not isinstance(length, int) or length < 1:
        raise refuse("k is no whole number above 0", repr(length))
    lists = {key: record.get(key) for key in ("history", "exclude", "allow")}
    for key, value in lists.items():
        if not _names(value) and not (value is None and key != "history"):
            raise refuse(f"{key} is no list of ids or titles", json.dumps(value)[:60])
    condition = record.get("filter")
    if not isinstance(condition, dict | None):
        raise refuse("filter is no object", json.dumps(condition)[:60])
    return RecommendRequest(record["history"], length, lists["exclude"] or (), lists["allow"], condition)


def _names(value: Any) -> bool:
    if not isinstance(value, list):
        return False
    return all(isinstance(name, str | int) and not isinstance(name, bool) for name in value)
