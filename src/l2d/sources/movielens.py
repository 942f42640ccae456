"""`movielens`: the `::` edition (1M, 10M), the tab edition (100K) and the csv editions (20M and later)."""

from __future__ import annotations

from pathlib import Path

from l2d.errors import ArtifactMissing, DataError
from l2d.sources.columns import Columns
from l2d.sources.gather import Titles, gather, read_titles, with_items
from l2d.sources.reading import Reading, Request
from l2d.sources.tables import Delimited, text_lines

# polars splits at single characters only: a `::` record has an empty cell between every two values.
COLON_NAMES = ("user", "", "item", "-", "rating", "--", "timestamp")
TAB_NAMES = ("user", "item", "rating", "timestamp")
RATINGS = {"ratings.dat": "movies.dat", "u.data": "u.item", "ratings.csv": "movies.csv"}


def read(request: Request) -> Reading:
    """Reads ratings as interactions, whatever the stars, and movie titles as they stand ("Matrix, The (1999)").

    Raises:
        ArtifactMissing: the folder has no ratings or no movies.
        DataError: a file is bad.
    """
    ratings = locate(request.source)
    movies = request.items or ratings.with_name(RATINGS.get(ratings.name, "movies.csv"))
    if not movies.is_file():
        raise ArtifactMissing(f"{movies} is not there", cure="put it beside the ratings, or pass --items")
    if ratings.name == "ratings.dat":
        table, columns = Delimited(ratings, ":", COLON_NAMES, quoted=False), Columns("user", "item", "timestamp")
    elif ratings.name == "u.data":
        table, columns = Delimited(ratings, "\t", TAB_NAMES, quoted=False), Columns("user", "item", "timestamp")
    else:
        table, columns = Delimited(ratings), request.columns
    reading = gather(table, columns, titles=False, progress=request.progress)
    titles = read_movies(movies) if movies.suffix != ".csv" else read_titles(Delimited(movies), Columns())
    return with_items(reading, titles, movies, all_items=True)


def locate(source: Path) -> Path:
    """The ratings file of a MovieLens folder, or the one given."""
    if not source.is_dir():
        return source
    for name in RATINGS:
        if (source / name).is_file():
            return source / name
    raise ArtifactMissing(f"{source} has none of {', '.join(RATINGS)}", cure="unpack the MovieLens archive there")


def read_movies(path: Path) -> Titles:
    """Id and title of `movies.dat` (`::`) and `u.item` (`|`): UTF-8 in the 10M edition, Latin-1 in the older ones.

    Raises:
        DataError: a line without a title, or a repeated id.
    """
    separator = "::" if path.suffix == ".dat" else "|"
    try:
        lines = list(text_lines(path))
    except DataError:
        lines = list(text_lines(path, "latin-1"))
    titles = Titles()
    for number, line in enumerate(lines, 1):
        cells = line.rstrip("\r\n").split(separator)
        if not line.strip():
            continue
        if len(cells) < 2 or not cells[0].strip():
            expected = f"id{separator}title"
            raise DataError(
                "the line is no movie", got=repr(line[:80]), expected=expected, cure="fix it", file=path, line=number
            )
        movie = cells[0].strip()
        if movie in titles.text:
            cure = "merge the lines or renumber one"
            raise DataError(
                "an item id occurs twice", got=repr(movie), expected="each id once", cure=cure, file=path, line=number
            )
        titles.add(movie, cells[1])
    return titles
