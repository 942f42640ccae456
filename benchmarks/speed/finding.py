"""What does a keystroke in the search of the catalogue cost, beside looking through all titles one by one?

    python benchmarks/speed/finding.py

Titles are random, of words whose frequencies fall as in language. The queries are beginnings of words of some titles,
letter by letter, as a person would type them, parts of titles, and titles with two letters exchanged. `loop` looks for
the query in every folded title, in Python; `difflib` is the standard library's search for close matches, over titles
folded once. `filter` is a filter on two metadata columns that was not asked before, `same filter` one that was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
import polars as pl

from l2d.catalog import Catalog
from l2d.catalog.finding import folded
from turns import arguments, keep, shown, timed

K = 20


def main(given_arguments: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__)
    parser.add_argument("--items", nargs="+", type=int, default=[10_000, 100_000])
    parser.add_argument("--queries", type=int, default=60)
    options = parser.parse_args(given_arguments)
    if options.smoke:
        options.items, options.queries = [200], 9
    tables = {f"{items} items": measured(items, options.queries) for items in options.items}
    keep("finding", {"tables": tables}, options)


def measured(items: int, queries: int) -> dict[str, Any]:
    """One catalogue's table."""
    rng = np.random.default_rng(0)
    catalog = random_catalog(items, rng)
    popularity = rng.integers(0, 100, items)
    plain = [folded(title) for title in catalog.titles]
    started = time.perf_counter()
    catalog.finder.find("some words nobody has written", popularity, K)
    made = time.perf_counter() - started

    def loop(query: str) -> object:
        wanted = folded(query)
        hits = [row for row, title in enumerate(plain) if wanted in title]
        return sorted(hits, key=lambda row: -popularity[row])[:K]

    calls: dict[str, Callable[[str], object]] = {
        "loop": loop,
        "find": lambda query: catalog.finder.find(query, popularity, K),
        "difflib": lambda query: get_close_matches(folded(query), plain, n=K, cutoff=0.5),
    }
    table: dict[str, Any] = {"seconds to make": made}
    for kind, asked in typed(catalog, queries, rng).items():
        few = calls if kind == "misspelt" else {name: call for name, call in calls.items() if name != "difflib"}
        table[kind] = timed(few, asked, "loop", warmup=1)
        ratios = "  ".join(f"{name} {shown(ratio)}" for name, ratio in table[kind]["over_loop"].items())
        print(f"{items} items, {kind}: over loop  {ratios}", flush=True)
    table["filter"] = filtered(catalog, queries)
    print(f"{items} items, filters: over loop  ", *(f"{n} {shown(r)}" for n, r in table["filter"]["over_loop"].items()))
    return table


def random_catalog(items: int, rng: np.random.Generator) -> Catalog:
    """Titles of 3 to 11 words, with two metadata columns."""
    vocabulary = ["".join(map(chr, rng.integers(97, 123, length))) for length in rng.integers(2, 10, 30_000)]
    share = 1 / np.arange(1, len(vocabulary) + 1) ** 0.8
    sizes = rng.integers(3, 12, items)
    words = iter(rng.choice(len(vocabulary), int(sizes.sum()), p=share / share.sum()).tolist())
    titles = [" ".join(vocabulary[next(words)] for _ in range(size)).title() for size in sizes.tolist()]
    brands = [f"brand {number}" for number in rng.integers(0, 200, items).tolist()]
    return Catalog(
        tuple(map(str, range(items))), tuple(titles), pl.DataFrame({"brand": brands, "price": rng.random(items)})
    )


def typed(catalog: Catalog, queries: int, rng: np.random.Generator) -> dict[str, list[str]]:
    """Queries by kind."""
    meant = [catalog.titles[row] for row in rng.integers(0, len(catalog), queries).tolist()]
    return {
        "letters": [title[: 1 + place % 12] for place, title in enumerate(meant)],
        "words": [" ".join(title.split()[1:3])[:-1] for title in meant],
        "parts": [title[3:10] for title in meant],
        "misspelt": [title[:3] + title[4:5] + title[3:4] + title[5:14] for title in meant[: max(3, queries // 6)]],
    }


def filtered(catalog: Catalog, queries: int) -> dict[str, Any]:
    """Filters, new and asked before, against a loop over rows."""
    records = list(zip(*(catalog.metadata[name].to_list() for name in ("brand", "price")), strict=True))  # type: ignore[index]
    numbers = iter(range(1, 1_000_000))

    def loop(brand: str) -> object:
        return [row for row, (name, price) in enumerate(records) if name == brand and price < 0.5]

    calls: dict[str, Callable[[str], object]] = {
        "loop": loop,
        "filter": lambda brand: catalog.where({"brand": brand, "price": {"lt": 0.5 + next(numbers) / 1e9}}),
        "same filter": lambda _: catalog.where({"brand": "brand 1", "price": {"lt": 0.5}}),
    }
    return timed(calls, [f"brand {number % 200}" for number in range(queries)], "loop", warmup=2)


if __name__ == "__main__":
    main()
