"""The demo world: a made-up bookshop over two years, the same on every machine, with no download.

The story. A shop sells a few hundred books of eight genres. About three in five belong to a series of three to six
volumes, whose titles begin alike and carry the volume's number; the others name their author. Rows and ids are
shuffled: they say nothing. What a customer buys next comes from one of four motives:

- *series*: the next volume of a series begun, the series bought last above all. Counts of what follows what learn it,
  and so does a reader of titles, who needs no count for a volume that has just come out.
- *companion*: every book has two fixed companions in any genre, most often taken in the same order (same timestamp).
  No title says which: only counts find them.
- *author*: another book by one of the customer's favourite authors. Titles name them, also on books hardly ever sold.
- *browsing*: popularity (Zipf, exponent .8, the last quarter hardly known) x the customer's taste in genres x the
  fashion of the day x novelty.

Everything moves. Genres come into fashion and go, a new book sells several times better in its first months, two fifths
of the books come out during the two years, tastes shift from order to order and now and then turn over. So counts,
text and drift each have something to win. Nothing in a title or id names a customer, a time or an answer, and every
choice depends on the customer's past alone.

Measured with the default seed under `split_by_time` (22,419 interactions): HR@10 on test of the generator's own
probabilities .58 (the best anyone can do), of co-occurrence counts .31, of training popularity .08; 4 % of the test
targets never occur before the cut, 2 % at most five times, 25 % have the same timestamp as the item before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from l2d.catalog import Catalog
from l2d.errors import ConfigError
from l2d.interactions import Interactions

DAY = 86_400
FIRST_DAY = 19_358
"""2023-01-01 in days since 1970."""
DAYS = 730
LAST_RELEASE = DAYS - 20

SERIES, COMPANION, AUTHOR = 0.24, 0.10, 0.13
"""Shares of the motives; browsing has the rest."""
COMPANION_IN_ORDER = 0.38
"""Share of the companion motive for the second and later books of one order."""


class Genre(NamedTuple):
    """Words that titles of one genre are made of."""

    name: str
    adjectives: str
    nouns: str
    series: str
    authors: str


GENRES = (
    Genre(
        "mystery",
        "Silent Broken Crimson Missing Hidden Borrowed Seventh Locked",
        "Alibi Witness Ledger Cellar Verdict Lantern Footprint Inquest",
        "Harbour Mysteries|Inspector Vane Cases|Canal Street Files",
        "Mara Quill|Edwin Thorne|Petra Lomax|Silas Grey",
    ),
    Genre(
        "fantasy",
        "Ashen Emerald Wandering Thorned Moonlit Forgotten Gilded Last",
        "Throne Dragon Oath Wizard Kingdom Spellbook Griffin Crown",
        "Runes of Avelar|Dragonwood Saga|Tales from Myrrin",
        "Isolde Fenn|Corwin Ashe|Tamsin Rook|Bram Eldar",
    ),
    Genre(
        "science fiction",
        "Orbital Fractured Distant Quantum Frozen Stellar Hollow Ninth",
        "Colony Signal Engine Airlock Nebula Android Paradox Starship",
        "Outer Ring Chronicles|Helix Station Novels|Terminus Protocol",
        "Yuri Castellan|Nadia Voss|Kip Ranford|Odessa Lim",
    ),
    Genre(
        "romance",
        "Tender Reckless Summer Secret Unexpected Velvet Second Golden",
        "Promise Heartbeat Wedding Kiss Valentine Bouquet Waltz Proposal",
        "Rosewood Bay Romances|Hearts of Larkhill|Sweet Orchard Stories",
        "Lila Hartley|Bianca Moreau|Daisy Penrose|Grace Winslow",
    ),
    Genre(
        "history",
        "Imperial Ancient Divided Maritime Roman Medieval Turbulent Lost",
        "Empire Republic Siege Treaty Dynasty Archive Voyage Revolution",
        "Illustrated World Histories|Voices of the Past|Crossroads of Empire",
        "Harold Bexley|Ingrid Falk|Matteo Ricci-Long|Ruth Abelard",
    ),
    Genre(
        "cookery",
        "Simple Rustic Spiced Weeknight Seasonal Slow Vegetarian Festive",
        "Kitchen Suppers Soups Baking Pantry Noodles Pickles Desserts",
        "Little Kitchen Library|Market Table Cookbooks|Home Baker Handbooks",
        "Priya Nandan|Claude Bernier|Hetty Marsh|Tomas Olive",
    ),
    Genre(
        "gardening",
        "Wild Urban Shady Perennial Edible Walled Cottage Organic",
        "Borders Orchards Roses Allotment Meadow Herbs Greenhouse Compost",
        "Green Thumb Guides|Four Seasons Garden|Potting Shed Manuals",
        "Fern Aldous|Basil Whitcombe|Olive Tranter|Rowan Peake",
    ),
    Genre(
        "travel",
        "Coastal Overland Remote Alpine Nomadic Southern Unmapped Slow",
        "Journey Railway Islands Desert Footpath Border Passport Pilgrimage",
        "Backroads Travel Companions|Night Train Diaries|Far Horizon Guides",
        "Jonas Wilder|Amara Okoye|Celia Drake|Niko Stavros",
    ),
)
PLACES = ("North", "Old", "Blue", "Grey", "Silver", "Upper", "West", "High")


class Book(NamedTuple):
    """One book; the fields are those of `Shop`."""

    title: str
    genre: int
    series: int
    volume: int
    author: int
    released: int


@dataclass(frozen=True)
class Shop:
    """The books, in row order; every array has shape (items,) but `companions`, (items, 2).

    Args:
        titles: distinct.
        genre: index into `GENRES`.
        series: number of the series, -1 for none.
        volume: place in the series, from 1; 0 for none.
        author: number of the author, -1 in a series.
        released: day of release, negative before the log begins.
        price: in whole cents.
        appeal: weight in browsing, before taste, fashion and novelty.
        companions: rows often bought with this one.
    """

    titles: tuple[str, ...]
    genre: NDArray[np.int64]
    series: NDArray[np.int64]
    volume: NDArray[np.int64]
    author: NDArray[np.int64]
    released: NDArray[np.int64]
    price: NDArray[np.int64]
    appeal: NDArray[np.float64]
    companions: NDArray[np.int64]


class Purchase(NamedTuple):
    """One interaction, with the chances that every item had. Shape of `chances`: (items,)."""

    user: int
    row: int
    timestamp: int
    chances: NDArray[np.float64]


def demo_world(seed: int = 7, users: int = 2000, items: int = 400) -> tuple[Catalog, Interactions]:
    """The demo shop's catalogue (metadata: genre, series, price, released) and its log.

    Args:
        seed: another seed gives another shop.
        users: customers; each has 4-30 interactions, 11 on average.
        items: books, at most 512.

    Raises:
        ConfigError: too few users or items for a world, or more items than there are titles.
    """
    if users < 1 or not 40 <= items <= 512:
        size = f"{users} users, {items} items"
        raise ConfigError("no demo world of this size", got=size, expected="at least 1 user, 40 to 512 items")
    rng = np.random.default_rng(seed)
    shop = stock(rng, items)
    log = [(purchase.user, purchase.row, purchase.timestamp) for purchase in purchases(shop, rng, users)]
    user, row, timestamp = np.array(log, dtype=np.int64).T
    names = tuple(f"reader-{index + 1:04d}" for index in range(users))
    return _catalog(shop, rng), Interactions(names, user.astype(np.int32), row.astype(np.int32), timestamp)


def _catalog(shop: Shop, rng: np.random.Generator) -> Catalog:
    series = np.where(shop.series >= 0, shop.series + 1, 0)
    metadata = pl.DataFrame(
        {
            "genre": [GENRES[genre].name for genre in shop.genre],
            "series": [f"series {number}" if number else None for number in series.tolist()],
            "price": shop.price / 100,
            "released": pl.Series(FIRST_DAY + shop.released, dtype=pl.Int32).cast(pl.Date),
        }
    )
    ids = 10_000 + rng.permutation(90_000)[: len(shop.titles)]
    return Catalog(tuple(str(item) for item in ids.tolist()), shop.titles, metadata)


def stock(rng: np.random.Generator, items: int) -> Shop:
    """Makes the books: titles, series, releases, appeal and companions, in shuffled rows."""
    books: list[Book] = []
    for genre in range(len(GENRES)):
        wanted = items // len(GENRES) + (genre < items % len(GENRES))
        books += _shelf(rng, genre, wanted, first_series=1 + max((book.series for book in books), default=-1))
    books = [books[place] for place in rng.permutation(len(books))]
    titles, *columns = zip(*books, strict=True)
    genres, numbers, volumes, writers, released = (np.array(column, dtype=np.int64) for column in columns)
    rank = rng.permutation(items)
    obscure = rank >= items * 3 // 4  # these are nobody's companions either, so that some items stay rare in the log
    appeal: NDArray[np.float64] = np.where(obscure, 0.15, 1.0) * (rank + 10.0) ** -0.8
    known = np.flatnonzero(~obscure)
    companions = np.stack([known[rng.permutation(len(known))[:2]] for _ in range(items)])
    price = 100 * rng.integers(5, 40, size=items) - 1
    # A volume behind the first is bought by those who read the one before; browsing seldom leads to it.
    appeal[volumes > 1] *= 0.25
    return Shop(titles, genres, numbers, volumes, writers, released, price, appeal, companions)


def _shelf(rng: np.random.Generator, genre: int, wanted: int, first_series: int) -> list[Book]:
    """The books of one genre: three in five in series, the others by its authors."""
    names = iter(_names(rng, GENRES[genre]))
    labels = iter(_series_labels(rng, GENRES[genre]))
    authors = GENRES[genre].authors.split("|")
    books: list[Book] = []
    series = first_series
    while len(books) < round(0.6 * wanted) - 2:
        label, day = next(labels), int(rng.integers(-700, 400))
        for volume in range(1, int(rng.integers(3, 7)) + 1):
            books.append(Book(f"{label} {volume}: {next(names)}", genre, series, volume, -1, min(day, LAST_RELEASE)))
            day += int(rng.integers(40, 160))
        series += 1
    while len(books) < wanted:
        author = int(rng.integers(len(authors)))
        day = int(rng.integers(-900, LAST_RELEASE)) if rng.random() < 0.6 else -900
        article = "The " if rng.random() < 0.5 else ""
        title = f"{article}{next(names)} by {authors[author]}"
        books.append(Book(title, genre, -1, 0, genre * len(authors) + author, day))
    return books[:wanted]


def _names(rng: np.random.Generator, genre: Genre) -> list[str]:
    pairs = [f"{adjective} {noun}" for adjective in genre.adjectives.split() for noun in genre.nouns.split()]
    return [pairs[place] for place in rng.permutation(len(pairs))]


def _series_labels(rng: np.random.Generator, genre: Genre) -> list[str]:
    labels = [f"{place} {label}" for place in PLACES for label in genre.series.split("|")]
    return [labels[place] for place in rng.permutation(len(labels))]


def purchases(shop: Shop, rng: np.random.Generator, users: int) -> Iterator[Purchase]:
    """Every customer's life, one after the other, each oldest first."""
    fashion = _fashion(rng)
    age = np.arange(DAYS)[:, None] - shop.released
    # A new book sells up to five times as well, with a half-life of six weeks; nothing sells before it is out.
    novelty = np.where(age >= 0, 1.0 + 4.0 * np.exp2(-np.maximum(age, 0) / 42.0), 0.0)
    demand = shop.appeal * novelty * fashion[:, shop.genre]
    for user in range(users):
        days = _order_days(rng)
        customer = Customer(shop, rng)
        previous = -1
        for day in days:
            if day != previous:
                customer.drift(rng)
                hour = int(rng.integers(7 * 3600, 23 * 3600))
            chances = customer.chances(demand[day], same_order=day == previous)
            row = int(np.searchsorted(np.cumsum(chances), rng.random() * chances.sum(), side="right"))
            customer.buy(row)
            yield Purchase(user, row, (FIRST_DAY + day) * DAY + hour, chances)
            previous = day


def _order_days(rng: np.random.Generator) -> list[int]:
    """The day of each of 4-30 interactions; about a quarter join the order before them."""
    count = min(30, 3 + int(rng.geometric(0.12)))
    first = int(rng.integers(0, DAYS - 90))
    last = min(DAYS, first + int(rng.integers(90, 540)))
    joins = rng.random(count) < 0.25
    joins[0] = False
    order = np.cumsum(~joins) - 1
    days = np.sort(first + rng.permutation(last - first)[: int(order[-1]) + 1])
    return [int(day) for day in days[order]]


def _fashion(rng: np.random.Generator) -> NDArray[np.float64]:
    """How much each genre is in fashion on each day. Shape: (DAYS, genres)."""
    phase, period = rng.random(len(GENRES)), rng.uniform(500, 900, size=len(GENRES))
    return np.exp(1.6 * np.sin(2 * np.pi * (np.arange(DAYS)[:, None] / period + phase)))


class Customer:
    """Taste, favourite authors and past purchases of one customer."""

    def __init__(self, shop: Shop, rng: np.random.Generator) -> None:
        self.shop = shop
        self.taste = rng.dirichlet(np.full(len(GENRES), 0.25))
        self.favours = np.isin(shop.author, rng.permutation(int(shop.author.max()) + 1)[:3])
        self.bought: list[int] = []

    def drift(self, rng: np.random.Generator) -> None:
        """Moves the taste a little, seldom altogether."""
        share = 1.0 if rng.random() < 0.03 else 0.12
        self.taste = (1 - share) * self.taste + share * rng.dirichlet(np.full(len(GENRES), 0.25))

    def buy(self, row: int) -> None:
        """Remembers a purchase."""
        self.bought.append(row)

    def chances(self, demand: NDArray[np.float64], *, same_order: bool) -> NDArray[np.float64]:
        """The probability of every item to be bought now; nothing is bought twice or before it is out.

        Args:
            demand: appeal x novelty x fashion of the day, 0 for what is not out yet. Shape: (items,).
            same_order: whether this joins the order of the purchase before.
        """
        browsing = demand * (self.taste + 0.01)[self.shop.genre]
        browsing[self.bought] = 0.0
        motives = (
            (SERIES, self._next_volumes()),
            (COMPANION_IN_ORDER if same_order else COMPANION, self._companions()),
            (AUTHOR, browsing * self.favours),
        )
        total, rest = np.zeros(len(browsing)), 1.0
        for share, weights in motives:
            possible = np.where(browsing > 0, weights, 0.0)
            if possible.sum() > 0:
                total += share * possible / possible.sum()
                rest -= share
        return total + rest * browsing / browsing.sum()

    def _next_volumes(self) -> NDArray[np.float64]:
        weights = np.zeros(len(self.shop.titles))
        weight, seen = 1.0, set()
        for row in reversed(self.bought):
            number = int(self.shop.series[row])
            if number < 0 or number in seen:
                continue
            seen.add(number)
            weights[(self.shop.series == number) & (self.shop.volume == self.shop.volume[row] + 1)] = weight
            weight *= 0.4
        return weights

    def _companions(self) -> NDArray[np.float64]:
        weights = np.zeros(len(self.shop.titles))
        if self.bought:
            weights[self.shop.companions[self.bought[-1]]] = 1.0
        return weights
