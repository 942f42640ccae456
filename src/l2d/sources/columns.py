"""Which column is the user, the item, the time, the title: the one place that knows how logs spell them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from l2d.errors import ConfigError, DataError

Role = Literal["user", "item", "time", "title"]

# Most telling first: of two columns that both could be the item, the earlier spelling is taken (Amazon 2023 has
# parent_asin and asin, and its metadata know only the former).
SPELLINGS: dict[Role, tuple[str, ...]] = {
    "user": (
        *("userid", "user", "uid", "reviewerid", "customerid", "customer", "memberid", "visitorid", "accountid"),
        *("personid", "profileid", "readerid", "listenerid", "authorid", "sessionid", "session"),
    ),
    "item": (
        *("itemid", "item", "iid", "parentasin", "asin", "productid", "product", "movieid", "articleid", "sku"),
        *("bookid", "isbn", "trackid", "songid", "gameid", "appid", "newsid", "videoid", "recipeid", "businessid"),
        *("artistid", "animeid", "contentid", "goodsid", "id"),
    ),
    "time": (
        *("timestamp", "unixreviewtime", "unixtime", "time", "ts", "datetime", "date", "eventtime", "createdat"),
        *("reviewtime", "ratedat", "tdat", "purchasedate", "orderdate", "eventtimestamp", "timestampms"),
    ),
    "title": (
        *("title", "itemtitle", "productname", "producttitle", "movietitle", "booktitle", "articletitle", "itemname"),
        *("prodname", "trackname", "songname", "headline", "name"),
    ),
}


@dataclass(frozen=True)
class Columns:
    """Column names given by the user; None: recognise it.

    Args:
        user: who acted.
        item: on what.
        time: when.
        title: the item's text, in the log or in the item file.
    """

    user: str | None = None
    item: str | None = None
    time: str | None = None
    title: str | None = None


def key(name: str) -> str:
    """A column name without case, blanks, punctuation and a RecBole type suffix: `User-ID:token` -> `userid`."""
    return "".join(letter for letter in name.partition(":")[0].lower() if letter.isalnum())


def recognise(columns: Sequence[str], role: Role) -> str | None:
    """The column with the most telling known spelling of a role, or None."""
    for spelling in SPELLINGS[role]:
        for column in columns:
            if key(column) == spelling:
                return column
    return None


def choose(path: Path, columns: Sequence[str], role: Role, given: str | None, *, required: bool = True) -> str | None:
    """The column that plays a role: the given one, else the recognised one.

    Raises:
        ConfigError: a column was given that the file does not have.
        DataError: none was given, none is recognised, and the role is required.
    """
    if given is not None:
        if given not in columns:
            raise ConfigError(
                f"{path} has no column {given!r}",
                got=f"columns {', '.join(map(repr, columns))}",
                cure=f"name the right --{role}-column",
            )
        return given
    found = recognise(columns, role)
    if found is None and required:
        raise DataError(
            f"no {role} column is recognised",
            got=f"columns {', '.join(map(repr, columns)) or 'none'}",
            expected=f"one spelled like {', '.join(SPELLINGS[role][:4])}",
            cure=f"name it with --{role}-column",
            file=path,
            line=None if path.suffix == ".parquet" else 1,
        )
    return found
