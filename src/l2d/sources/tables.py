"""Tables on disk in batches: delimited text, JSON lines, Parquet, each perhaps gzipped; memory is that of one batch.

Whatever goes wrong while reading becomes a `DataError` that names the file, and the line where there is one.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import itertools
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Protocol, cast

import polars as pl
from polars.exceptions import PanicException, PolarsError

from l2d.errors import ArtifactMissing, DataError

BATCH = 1 << 20
GZIP = b"\x1f\x8b"
PARQUET = b"PAR1"
TAB_SUFFIXES = {".tsv", ".tab", ".inter", ".item", ".data"}


class Table(Protocol):
    """A file of records with named columns."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Its column names."""

    def batches(self, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """The named columns, some records at a time, in file order."""

    def line(self, record: int) -> int | None:
        """The line on which a record (counted from 0) begins, where the format has lines."""

    def estimate(self) -> int:
        """About how many records there are; only good for a progress bar."""


def fault(table: Table, record: int, what: str, *, got: object, expected: object, cure: str) -> DataError:
    """An error about one record, with its line, or its number where the file has no lines."""
    line = table.line(record)
    place = what if line is not None else f"{what} in record {record + 1}"
    return DataError(place, got=got, expected=expected, cure=cure, file=table.path, line=line)


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns what the operating system, gzip and polars say about a broken file into `DataError`."""
    if not path.exists():
        raise ArtifactMissing(f"{path} is not there", cure="check the path")
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        cure = "the file is truncated or damaged: download or copy it again"
        raise DataError("the gzip stream ends early or is damaged", got=error, file=path, cure=cure) from error
    except OSError as error:
        raise DataError(
            "the file cannot be read", got=error, file=path, cure="check the file; copy it again"
        ) from error
    except (PolarsError, PanicException, csv.Error) as error:
        got = str(error).strip().splitlines()[0][:200]
        raise DataError(
            "the file cannot be parsed", got=got, file=path, cure="check that it is what it is said to be"
        ) from error


def head(path: Path, size: int = 1 << 16) -> bytes:
    """The first bytes of a file, unzipped if need be."""
    with readable(path), open_bytes(path) as file:
        return file.read(size)


def open_bytes(path: Path) -> IO[bytes]:
    """Opens a file for reading, through gzip when its first bytes say so (names lie)."""
    file = path.open("rb")
    if file.read(2) == GZIP:
        file.close()
        return cast("IO[bytes]", gzip.open(path, "rb"))
    file.seek(0)
    return file


def text_lines(path: Path, encoding: str = "utf-8") -> Iterator[str]:
    """The lines of a text file with their ends, decoded one by one so that a broken byte has a line number.

    Raises:
        DataError: a line is not in that encoding.
    """
    with readable(path), open_bytes(path) as file:
        for number, raw in enumerate(file, 1):
            try:
                yield raw.decode("utf-8-sig" if number == 1 and encoding == "utf-8" else encoding)
            except UnicodeDecodeError as error:
                raise DataError(
                    f"the text is not {encoding.upper()}",
                    got=f"byte {raw[error.start : error.start + 1]!r}",
                    cure="save the file as UTF-8 (iconv -f LATIN1 -t UTF-8 does it for Western European text)",
                    file=path,
                    line=number,
                ) from error


@dataclass(frozen=True)
class Delimited:
    """CSV, TSV and the like. Every cell is text; a short record ends in missing cells, a long one is refused.

    Args:
        path: the file, perhaps gzipped.
        separator: one character.
        names: column names of a file without a header line.
        quoted: whether double quotes enclose cells.
    """

    path: Path
    separator: str = ","
    names: tuple[str, ...] | None = None
    quoted: bool = True

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The names in the header, blanks stripped."""
        if self.names is not None:
            return self.names
        header = next((record for record in self._records() if record), None)
        if header is None:
            raise DataError("the file is empty", expected="a header line", cure="check the file", file=self.path)
        names = tuple(name.strip() for name in header)
        if twice := [name for name in names if names.count(name) > 1]:
            cure = "rename or remove one of them"
            raise DataError("a column name occurs twice", got=repr(twice[0]), cure=cure, file=self.path, line=1)
        return names

    def batches(self, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """Read by polars; where it gives up, the csv module goes on: it reads more and names the line it cannot."""
        done = 0
        with readable(self.path):
            try:
                for batch in self._scan().select(columns).collect_batches(chunk_size=BATCH, engine="streaming"):
                    yield batch
                    done += len(batch)
                return
            except (PolarsError, PanicException):
                pass  # e.g. a stray quote, as in `7" single`, or a byte that is not UTF-8
            yield from self._careful(columns, done)

    def line(self, record: int) -> int | None:
        """Found by reading up to there: only errors ask."""
        reader = csv.reader(text_lines(self.path), **self._dialect)
        with contextlib.suppress(csv.Error, DataError):
            next(itertools.islice(self._body(reader), record, record), None)
            return reader.line_num + 1
        return None

    def estimate(self) -> int:
        """From the mean line length of the file's beginning."""
        return estimate_lines(self.path)

    @property
    def _dialect(self) -> dict[str, Any]:
        quoting = csv.QUOTE_MINIMAL if self.quoted else csv.QUOTE_NONE
        return {"delimiter": self.separator, "quoting": quoting, "strict": True}

    def _scan(self) -> pl.LazyFrame:
        return pl.scan_csv(
            self.path,
            separator=self.separator,
            has_header=self.names is None,
            schema=dict.fromkeys(self.columns, pl.String),
            quote_char='"' if self.quoted else None,
            glob=False,
        )

    def _records(self) -> Iterator[list[str]]:
        reader = csv.reader(text_lines(self.path), **self._dialect)
        with readable(self.path):
            try:
                yield from reader
            except csv.Error as error:
                cure = "check the quotes there: a quoted cell ends with a quote, and a quote inside it is doubled"
                raise DataError(
                    "the record is malformed", got=error, cure=cure, file=self.path, line=reader.line_num
                ) from error

    def _body(self, records: Iterator[list[str]]) -> Iterator[list[str]]:
        if self.names is None:
            next(filter(None, records), None)
        return records

    def _careful(self, columns: Sequence[str], skip: int) -> Iterator[pl.DataFrame]:
        width, places = len(self.columns), [self.columns.index(name) for name in columns]
        numbered = enumerate(self._body(self._records()))
        for chunk in batched(itertools.islice(numbered, skip, None), BATCH):
            for number, record in chunk:
                if len(record) > width:
                    what = "the record has more cells than the header"
                    cure = f"quote cells that contain {self.separator!r}"
                    raise fault(self, number, what, got=len(record), expected=width, cure=cure)
            cells = [[record[place] if place < len(record) else None for _, record in chunk] for place in places]
            yield pl.DataFrame(dict(zip(columns, cells, strict=True)), schema=dict.fromkeys(columns, pl.String))


def strict_json(line: bytes) -> Any:
    """One JSON value; bytes that are no UTF-8 are refused."""
    return json.loads(line.decode("utf-8-sig"))


@dataclass(frozen=True)
class JsonLines:
    """One JSON object per line. Every cell becomes text; numbers lose a superfluous `.0`.

    Args:
        path: the file, perhaps gzipped.
        decode: bytes of a line -> mapping; may raise ValueError.
    """

    path: Path
    decode: Callable[[bytes], Any] = strict_json

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Keys of the first thousand records, in order of appearance; none with half a character in it."""
        first = [self._record(number, line) for number, line in itertools.islice(self._lines(), 1000)]
        if not first:
            raise DataError(
                "the file is empty", expected="one JSON object per line", cure="check the file", file=self.path
            )
        names = dict.fromkeys(name for record in first for name in record)
        return tuple(name for name in names if name == without_surrogates(name))

    def batches(self, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """Parsed in Python: 4 microseconds a line, and exact about types and lines, which polars is not."""
        for chunk in batched(self._lines(), BATCH // 8):
            cells: list[list[str | None]] = [[] for _ in columns]
            for number, line in chunk:
                record = self._record(number, line)
                escaped = b"\\u" in line
                for name, column in zip(columns, cells, strict=True):
                    value = record.get(name)
                    text = value if type(value) is str else self._text(value, name, number)
                    column.append(without_surrogates(text) if escaped and text else text)
            yield pl.DataFrame(dict(zip(columns, cells, strict=True)), schema=dict.fromkeys(columns, pl.String))

    def values(self, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """The named cells of each record as JSON has them, None where a record has no such key."""
        for number, line in self._lines():
            record = self._record(number, line)
            yield tuple(record.get(name) for name in columns)

    def line(self, record: int) -> int | None:
        """Found by counting up to there: only errors ask."""
        return next(itertools.islice(self._lines(), record, None), (None, b""))[0]

    def estimate(self) -> int:
        """From the mean line length of the file's beginning."""
        return estimate_lines(self.path)

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        with readable(self.path), open_bytes(self.path) as file:
            for number, line in enumerate(file, 1):
                if not line.isspace():
                    yield number, line

    def _record(self, number: int, line: bytes) -> dict[str, Any]:
        expected, cure = "one object per line", "check that line; the file may be cut off there"
        try:
            record = self.decode(line)
        except (ValueError, RecursionError) as error:
            got = str(error)[:200]
            raise DataError(
                "the line cannot be parsed", got=got, expected=expected, cure=cure, file=self.path, line=number
            ) from error
        if not isinstance(record, dict):
            got = type(record).__name__
            raise DataError("the line is no object", got=got, expected=expected, cure=cure, file=self.path, line=number)
        return record

    def _text(self, value: object, name: str, number: int) -> str | None:
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            return str(int(value))
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        raise DataError(
            f"{name!r} has a value that is neither text nor a number",
            got=str(value)[:80],
            expected="text, a number or null",
            cure="fix the line or name another column",
            file=self.path,
            line=number,
        )


def without_surrogates(text: str) -> str:
    """JSON may escape half a character (U+D800), which no UTF-8 file can hold: a question mark takes its place."""
    return text.encode("utf-8", "replace").decode("utf-8")


@dataclass(frozen=True)
class Parquet:
    """A Parquet file; cells keep their types."""

    path: Path

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The names in the schema."""
        with readable(self.path):
            return tuple(pl.read_parquet_schema(self.path))

    def batches(self, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """Streamed by polars."""
        with readable(self.path):
            frame = pl.scan_parquet(self.path, glob=False).select(columns)
            yield from frame.collect_batches(chunk_size=BATCH, engine="streaming")

    def line(self, record: int) -> int | None:
        """Parquet has no lines."""
        return None

    def estimate(self) -> int:
        """Exact: the footer says it."""
        with readable(self.path):
            return int(pl.scan_parquet(self.path, glob=False).select(pl.len()).collect().item())


def open_table(path: Path) -> Table:
    """The table in a file, by its content: Parquet, JSON lines, else text with the separator of its first line.

    Raises:
        ArtifactMissing: no such file.
        DataError: an empty file, a JSON array, or a file that is no table.
    """
    start = head(path)
    if start[:4] == PARQUET or path.suffix in (".parquet", ".pq"):
        return Parquet(path)
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text:
        raise DataError("the file is empty", expected="a table", cure="check the file", file=path)
    if text[:1] == b"{":
        return JsonLines(path)
    if text[:1] == b"[" and ".json" in path.suffixes:
        raise DataError(
            "the file is a JSON array", expected="one object per line", cure="convert it: jq -c '.[]'", file=path
        )
    first = text.split(b"\n", 1)[0]
    tab = Path(path.name.removesuffix(".gz")).suffix in TAB_SUFFIXES and b"\t" in first
    separator = "\t" if tab else max(",\t;|", key=lambda mark: first.count(mark.encode()))
    return Delimited(path, separator)


def whole(table: Table, columns: Sequence[str]) -> pl.DataFrame:
    """All records of a table at once, for files that are small by nature."""
    nothing = pl.DataFrame(schema=dict.fromkeys(columns, pl.String))
    return pl.concat([nothing, *table.batches(columns)])


def estimate_lines(path: Path) -> int:
    """A guess at a text file's number of lines; gzip is taken to shrink text to a quarter."""
    sample = head(path)
    if not sample:
        return 0
    with path.open("rb") as file:
        size = path.stat().st_size * (4 if file.read(2) == GZIP else 1)
    return max(1, size * max(1, sample.count(b"\n")) // len(sample))


def batched(values: Iterator[Any], size: int) -> Iterator[list[Any]]:
    """Lists of up to `size` consecutive values."""
    while chunk := list(itertools.islice(values, size)):
        yield chunk
