"""The report: figures lie where their axes say, nothing is made up, and the page stands alone in any browser."""

from __future__ import annotations

import copy
import json
import math
import os
import re
import subprocess
from html import escape, unescape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l2d.compare.report import frontier_svg, render
from l2d.compare.report.frontier import pareto
from l2d.compare.report.markup import Markup, tag
from l2d.compare.report.scales import STEPS, Linear, Log, log_ticks
from l2d.compare.report.svg import spread
from l2d.compare.report.wording import amount, listed, probability, rate, rate_ticks, signed, ticked
from l2d.costs import PHASES
from l2d.errors import DataError

CHROMIUM = Path("/usr/bin/chromium")
ROUNDING = 0.02
"""Coordinates are written to a hundredth of a pixel."""


def quality(users: int, hits: float, *, sparse: float = 0.02) -> dict[str, Any]:
    metrics = {"hr@10": hits, "ndcg@10": round(hits * 0.75, 4), "recall@10": hits}
    slices = {
        "freq_0": {"users": 5, "hr@10": 0.0},
        "freq_1_2": {"users": 7, "hr@10": sparse},
        "freq_3_5": {"users": 9, "hr@10": hits},
        "freq_6_more": {"users": 11, "hr@10": hits * 2},
        "same_time": {"users": 20, "hr@10": hits * 1.5},
        "later": {"users": 12, "hr@10": hits / 4},
        "unknown_time": {"users": 0},
    }
    intervals = {"hr@10": [hits - 0.01, hits + 0.01]}
    return {"users": users, "metrics": metrics, "title_match": metrics, "intervals": intervals, "slices": slices}


def row(
    kind: str, hits: float, split: list[float], *, chance: float | None = None, against: float = 0.12
) -> dict[str, Any]:
    on_all = kind != "language"
    found = {"kind": kind, **quality(6000 if on_all else 1000, hits)}
    if on_all:
        found["sample"] = quality(1000, hits + 0.004)
    if chance is not None:
        gap = hits - against
        test = {"difference": gap, "low": gap - 0.006, "high": gap + 0.006, "p_holm": chance, "users": 1000}
        found["versus"] = {"hr@10": test}
    latency: dict[str, float] = {"p50": sum(split), "p95": sum(split) * 1.5}
    latency |= {phase: ms for phase, ms in zip(PHASES, split, strict=True)}
    speed = {"requests_per_second": 10_000 / sum(split), "batch": 32, "model_calls": 1, "timed": 100}
    return {**found, "latency_ms": latency, **speed, "memory_mib": 12.5}


def record() -> dict[str, Any]:
    rows = {
        "vote": row("latent", 0.12, [0.2, 4.0, 0.0, 0.8]),
        "beam": row("language", 0.08, [0.2, 4.0, 18.0, 2.8], chance=0.001),
        "item-head": row("peer", 0.118, [0.2, 4.0, 0.0, 0.3], chance=0.4),
        "cooccurrence": row("baseline", 0.15, [0.0, 0.0, 0.0, 0.4], chance=0.0002),
    }
    rows["item-head"]["seeds"] = {"n": 3, "sd": {"hr@10": 0.0021}}
    points = [
        ("local", 10, 0.1),
        ("local", 50, 0.116),
        ("vote", 10, 0.101),
        ("vote", 50, 0.12),
        ("global", None, 0.114),
    ]
    shares = [("vote", 1, 0.12), ("vote", 0.3, 0.09), ("vote", 0.1, 0.06), ("global", 1, 0.114), ("global", 0.3, 0.076)]
    times = [("vote", 1, 5.0), ("vote", 100, 5.5), ("beam", 1, 20.0), ("beam", 100, 200.0)]
    curves = {
        "neighbours": {
            "users": 2000,
            "fitted": {"local": 50},
            "points": [{"decoder": n, "neighbours": m, "hr@10": q, "ndcg@10": q / 2} for n, m, q in points],
        },
        "memory": {
            "users": 2000,
            "entries": 49_251,
            "points": [{"decoder": n, "share": s, "hr@10": q, "ndcg@10": q / 2} for n, s, q in shares],
        },
        "length": {"requests": 20, "points": [{"decoder": n, "k": k, "p50_ms": ms} for n, k, ms in times]},
    }
    run = {
        "name": "shop",
        "backbone": {"name": "scratch:tiny", "revision": None, "dtype": "float32", "parameters": 561_920},
        "items": 5841,
        "entries": 49_251,
        "fitted": {"vote": {"neighbours": 200, "temperature": 0.125}},
        "date": "2026-11-23",
        "machine": {"cpu": "Some CPU", "cores": 2, "threads": 2, "gpu": None, "system": "Linux"},
        "versions": {"torch": "2.13"},
    }
    return {
        "split": "test",
        "users": 6000,
        "sample_users": 1000,
        "seed": 7,
        "against": "vote",
        "list_length": 10,
        "searched_length": 50,
        "run": run,
        "rows": rows,
        "curves": curves,
    }


class Page(HTMLParser):
    """The page as a browser would take it apart: opening tags with attributes, and all text outside of styles."""

    VOID = frozenset({"meta", "br", "hr", "col"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def plots(text: str) -> dict[str, ElementTree.Element]:
    """The plots by the anchor of their title."""
    found = [ElementTree.fromstring(svg) for svg in re.findall(r'<svg class="plot".*?</svg>', text, re.DOTALL)]
    return {plot.find("title").attrib["id"].removesuffix("-title"): plot for plot in found}  # type: ignore[union-attr]


def place(mark: ElementTree.Element) -> tuple[float, float]:
    x, y = re.fullmatch(r"translate\(([-\d.]+) ([-\d.]+)\)", mark.attrib["transform"]).groups()  # type: ignore[union-attr]
    return float(x), float(y)


def marks(plot: ElementTree.Element) -> dict[str, tuple[float, float]]:
    """Where the marks with a tooltip stand, by what the tooltip says."""
    return {title.text or "": place(path) for path in plot.iter("path") if (title := path.find("title")) is not None}


def ruler(plot: ElementTree.Element, axis: str) -> list[tuple[float, float]]:
    """(coordinate, value) of the numbers at one axis: x has them centred below, y right-aligned on the left."""
    anchor = {"x": "middle", "y": "end"}[axis]
    ticks = [t for t in plot.iter("text") if t.attrib["class"] == "tick" and t.attrib.get("text-anchor") == anchor]
    offset = {"x": 0.0, "y": -4.0}[axis]
    return sorted((float(tick.attrib[axis]) + offset, value_of(tick.text or "")) for tick in ticks)


def value_of(text: str) -> float:
    plain = text.replace("\N{MINUS SIGN}", "-").replace("+", "").replace(",", "")
    return float(plain.removesuffix(" %")) / (100 if plain.endswith("%") else 1)


def read_off(at: float, scale: list[tuple[float, float]], *, log: bool = False) -> float:
    """The value at a coordinate, as a reader with a ruler finds it between two numbers of the axis."""
    (a, low), (b, high) = scale[0], scale[-1]
    share = (at - a) / (b - a)
    return low * (high / low) ** share if log else low + share * (high - low)


def test_a_tag_escapes_what_is_not_markup() -> None:
    made = tag(
        "p", 'a < b & "c"', tag("b", "<i>"), None, title='"<&>', class_="x", aria_label="y", hidden=True, id=None
    )
    opening = '<p title="&quot;&lt;&amp;&gt;" class="x" aria-label="y" hidden="">'
    assert made == opening + "a &lt; b &amp; &quot;c&quot;<b>&lt;i&gt;</b></p>"
    assert tag("meta", charset="utf-8") == '<meta charset="utf-8">'
    assert tag("line", x1=1.0, y1=-0.001, x2=2.345) == '<line x1="1" y1="0" x2="2.35"></line>'
    assert isinstance(made, Markup)


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0.03, 0.12], (0, 0.025, 0.05, 0.075, 0.1, 0.125)),
        ([88.0], (0, 20, 40, 60, 80, 100)),
        ([-0.118, 0.034], (-0.15, -0.1, -0.05, 0, 0.05)),
        ([], (0, 0.2, 0.4, 0.6, 0.8, 1)),
        ([0.0], (0, 0.2, 0.4, 0.6, 0.8, 1)),
    ],
)
def test_linear_ticks_worked_by_hand(values: list[float], ticks: tuple[float, ...]) -> None:
    assert Linear.fitting(values, 0, 100).ticks == pytest.approx(ticks)


def test_scales_worked_by_hand() -> None:
    assert Linear(0.0, 0.2, 400.0, 0.0, ())(0.05) == pytest.approx(300)
    assert Log(1.0, 100.0, 0.0, 200.0, ())(10.0) == pytest.approx(100)
    assert Log(0.1, 100.0, 30.0, 330.0, ())(1.0) == pytest.approx(130)
    assert log_ticks(0.08, 200) == (0.1, 1, 10, 100)
    assert log_ticks(1.5, 30) == (2, 5, 10, 20)


@given(st.lists(st.floats(-1e4, 1e4).filter(lambda x: x == 0 or abs(x) > 1e-3), min_size=1, max_size=9), st.booleans())
def test_linear_scales_hold_all_values_between_round_ticks(values: list[float], zero: bool) -> None:
    scale = Linear.fitting(values, 10.0, 110.0, zero=zero)
    assert all(10 - 1e-6 <= scale(value) <= 110 + 1e-6 for value in values)
    gaps = [b - a for a, b in pairwise(scale.ticks)]
    assert 1 <= len(gaps) <= 8
    power = 10 ** math.floor(math.log10(gaps[0]) + 1e-9)
    assert any(math.isclose(gaps[0] / power, step, rel_tol=1e-6) for step in STEPS)
    assert gaps == pytest.approx([gaps[0]] * len(gaps), rel=1e-6)
    assert not zero or 0 in scale.ticks


@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=9))
def test_log_scales_hold_all_values_and_have_ticks_inside(values: list[float]) -> None:
    scale = Log.fitting(values, 0.0, 300.0)
    assert all(0 < scale(value) < 300 for value in values)
    assert all(scale.low <= tick <= scale.high for tick in scale.ticks)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12))
def test_the_front_is_what_no_other_point_beats(points: list[tuple[int, int]]) -> None:
    expected = []
    for cost, worth in points:
        beaten = False
        for c, w in points:
            beaten = beaten or (c < cost and w >= worth) or (c <= cost and w > worth)
        expected.append(not beaten)
    assert pareto(points) == expected


@given(st.lists(st.floats(0, 100), max_size=6))
def test_spread_names_keep_their_order_and_distance(wanted: list[float]) -> None:
    places = spread(wanted, 15.0, 0.0, 100.0)
    ordered = [places[index] for index in sorted(range(len(wanted)), key=wanted.__getitem__)]
    assert all(b - a >= 15 - 1e-9 for a, b in pairwise(ordered))
    assert all(-1e-9 <= place <= 100 + 1e-9 for place in places)


def test_names_that_do_not_touch_stay_where_they_are() -> None:
    assert spread([50.0, 10.0, 90.0], 15.0, 0.0, 100.0) == [50.0, 10.0, 90.0]


def test_numbers_read_as_people_write_them() -> None:
    assert [rate(0.124), rate(-0.01), rate(0.0), rate(1.0), rate(None)] == [
        ".1240",
        "\u2212.0100",
        ".0000",
        "1.0000",
        "\u2013",
    ]
    assert [signed(0.028), signed(-0.00001), signed(-0.5, 2)] == ["+.0280", ".0000", "\u2212.50"]
    assert [amount(v) for v in (0, 0.114, 5.1, 27.44, 131.2, 12_800, None)] == [
        "0",
        "0.11",
        "5.1",
        "27.4",
        "131",
        "12,800",
        "\u2013",
    ]
    assert [probability(v) for v in (0.0002, 0.05, None)] == ["< .001", ".050", "\u2013"]
    assert rate_ticks((0.0, 0.025, 0.1)) == ["0", ".025", ".100"]
    assert [ticked(v) for v in (0.1, 20.0, 1000.0, -5.0)] == ["0.1", "20", "1,000", "\u22125"]
    assert [listed(list("abc")), listed(["a"]), listed([])] == ["a, b and c", "a", ""]


def test_quality_against_latency_is_drawn_where_the_axes_say() -> None:
    data = record()
    plot = plots(render(data))["frontier"]
    found = {title.partition(":")[0]: point for title, point in marks(plot).items()}
    assert set(found) == set(data["rows"])
    for name, (x, y) in found.items():
        one = data["rows"][name]
        on_same_users = one.get("sample", one)["metrics"]["hr@10"]
        assert read_off(x, ruler(plot, "x"), log=True) == pytest.approx(one["latency_ms"]["p50"], rel=2e-3)
        assert read_off(y, ruler(plot, "y")) == pytest.approx(on_same_users, abs=1e-4)
    halos = [place(path) for path in plot.iter("path") if "halo" in path.attrib["class"]]
    assert halos == [found["cooccurrence"]]


def test_differences_are_drawn_where_the_axis_says() -> None:
    data = record()
    plot = plots(render(data))["differences"]
    found = {title.partition(" ")[0]: point for title, point in marks(plot).items()}
    assert list(found) == ["beam", "item-head", "cooccurrence"]
    spans = [line for line in plot.iter("line") if line.attrib["class"].startswith("span")]
    for name, line in zip(found, spans, strict=True):
        test = data["rows"][name]["versus"]["hr@10"]
        scale = ruler(plot, "x")
        drawn = [found[name][0], float(line.attrib["x1"]), float(line.attrib["x2"])]
        expected = [test["difference"], test["low"], test["high"]]
        assert [read_off(at, scale) for at in drawn] == pytest.approx(expected, abs=1e-4)


def test_slices_and_lines_are_drawn_where_the_axes_say() -> None:
    data = record()
    drawn = plots(render(data))
    for name, sign in {"never": "freq_0", "1\N{EN DASH}2": "freq_1_2", "6 or more": "freq_6_more"}.items():
        x, _ = marks(drawn["frequency"])[f"beam, {name}: {rate(data['rows']['beam']['slices'][sign]['hr@10'])}"]
        assert read_off(x, ruler(drawn["frequency"], "x")) == pytest.approx(
            data["rows"]["beam"]["slices"][sign]["hr@10"], abs=2e-4
        )
    cases = {"neighbours": ("local: .1160 at 50", 50, 0.116), "kept": ("vote: .0900 at 30 %", 0.3, 0.09)}
    cases["lengths"] = ("beam: 200 at 100", 100, 200)
    for ident, (title, x_value, y_value) in cases.items():
        plot = drawn[ident]
        x, y = marks(plot)[title]
        assert read_off(x, ruler(plot, "x"), log=ident != "kept") == pytest.approx(x_value, rel=1e-3)
        assert read_off(y, ruler(plot, "y"), log=ident == "lengths") == pytest.approx(y_value, rel=2e-3)


def test_phases_are_as_long_as_they_took_and_lie_end_to_end() -> None:
    data = record()
    plot = plots(render(data))["phases"]
    scale = ruler(plot, "x")
    bars = [rect for rect in plot.iter("rect") if (rect.find("title")) is not None]
    beam = [rect for rect in bars if rect.find("title").text.startswith("beam,")]  # type: ignore[union-attr]
    ends = [read_off(float(rect.attrib["x"]) + float(rect.attrib["width"]), scale) for rect in beam]
    assert ends == pytest.approx([0.2, 4.2, 22.2, 25.0], abs=0.01)
    assert [rect.attrib["class"] for rect in beam] == ["p0", "p1", "p2", "p3"]
    starts = [float(rect.attrib["x"]) for rect in beam]
    widths = [float(rect.attrib["width"]) for rect in beam]
    assert starts[1:] == pytest.approx([a + b for a, b in zip(starts[:-1], widths[:-1], strict=True)], abs=ROUNDING)


def test_what_loses_is_said() -> None:
    text = Page(render(record())).text
    assert "In HR@10 vote loses to cooccurrence by .0300." in text
    assert "vote beats beam by .0400." in text
    assert "Not told apart from vote: item-head (\u2212.0020)." in text
    assert "vote answers one request in 5.0 ms, 5.0 times as fast as beam." in text
    assert "Faster than vote: item-head (4.5 ms) and cooccurrence (0.40 ms)." in text
    assert "vote is not among them." in text
    assert "With 30 % of the entries remains of HR@10: vote 75 % and global 67 %." in text
    assert "A list of 100 takes, compared with a list of 1, 1.1 times for vote and 10.0 times for beam." in text


@pytest.mark.parametrize(("searched", "said"), [(50, True), (10, False), (None, False)])
def test_a_search_that_is_judged_wider_than_timed_is_said_to_be(searched: int | None, said: bool) -> None:
    text = Page(render(record() | {"searched_length": searched})).text
    assert "Times are for lists of 10." in text
    assert ("Decoders in language space are judged on lists of 50, with as many beams." in text) == said


def test_nothing_is_said_to_lose_where_nothing_is_better() -> None:
    data = record()
    del data["rows"]["cooccurrence"]
    text = Page(render(data)).text
    assert "Nothing here is found to beat vote in HR@10." in text and "loses" not in text


def test_the_table_has_the_record_s_figures_in_its_order() -> None:
    text = render(record())
    table = re.search(r'<table class="headline">.*?</table>', text, re.DOTALL)
    assert table is not None
    cells = [re.sub(r"<[^>]+>", " ", part) for part in re.findall(r"<tr.*?</tr>", table.group(), re.DOTALL)[2:]]
    lines = [" ".join(unescape(cell).split()) for cell in cells]
    assert [line.split()[0] for line in lines] == list(record()["rows"])
    assert lines[1].startswith("beam language, 1,000 users .0800 .0700 to .0900 .0600 .0800 .0800 \u2212.0400")
    assert "\u2212.0460 to \u2212.0340 .001 worse 25.0 p95 37.5 1.0 \N{MULTIPLICATION SIGN}" in lines[1]
    assert lines[1].endswith("400 batch 32 12.5")
    assert "3 seeds" in lines[2] and "seeds ±.0021" in lines[2] and ".400 open" in lines[2]
    assert "+.0300" in lines[3] and "< .001 better" in lines[3] and "62.5 \N{MULTIPLICATION SIGN}" in lines[3]


@pytest.mark.parametrize(
    ("path", "ident"),
    [
        (("curves", "neighbours"), "neighbours"),
        (("curves", "memory"), "kept"),
        (("curves", "length"), "lengths"),
        (("rows", "*", "latency_ms"), "frontier"),
        (("rows", "*", "latency_ms"), "phases"),
        (("rows", "*", "versus"), "differences"),
    ],
)
def test_a_plot_without_data_is_left_out_with_a_sentence(path: tuple[str, ...], ident: str) -> None:
    data = record()
    whole = plots(render(data))
    holders = list(data["rows"].values()) if path[0] == "rows" else [data["curves"]]
    for holder in holders:
        holder.pop(path[-1], None)
    text = render(data)
    assert set(whole) - set(plots(text)) == {ident} | ({"frontier", "phases"} if "latency_ms" in path else set())
    title = whole[ident].find("title").text  # type: ignore[union-attr]
    assert re.search(rf"{title}\W[^.]*\. ?[A-Z].*?\b(not|no|nothing)\b", Page(text).text, re.IGNORECASE)


def test_the_least_record_makes_a_page() -> None:
    page = Page(render({"rows": {"a": {"kind": "latent"}}}))
    assert not page.open and "a" in page.words
    assert not plots(render({"rows": {"a": {}}}))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), None, "high", True, [], {}])
def test_a_figure_that_is_no_number_counts_as_absent(bad: object) -> None:
    data = record()
    data["rows"]["beam"]["metrics"]["hr@10"] = bad
    data["rows"]["beam"]["intervals"]["hr@10"] = [0.1, bad]
    data["curves"]["length"]["points"][0]["p50_ms"] = bad
    text = render(data)
    assert "nan" not in text.lower().replace("dominan", "") and "inf," not in text
    assert not any(title.startswith("beam:") for title in marks(plots(text)["frontier"]))


def test_zeros_do_not_break_a_log_axis() -> None:
    data = record()
    data["rows"]["cooccurrence"]["latency_ms"]["p50"] = 0
    data["curves"]["length"]["points"][0]["p50_ms"] = 0
    data["curves"]["neighbours"]["points"][0]["neighbours"] = 0
    assert len(marks(plots(render(data))["frontier"])) == 3


@pytest.mark.parametrize("data", [{}, {"rows": {}}, {"rows": None}, {"rows": [1]}])
def test_what_is_no_record_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"no record of a comparison \(got no rows.*l2d compare"):
        render(data)


def test_names_are_escaped_everywhere() -> None:
    evil = '<script>alert("1&2")</script>'
    data = record()
    data["rows"] = {evil if name == "vote" else name: one for name, one in data["rows"].items()}
    data["rows"]["beam"]["kind"] = 'x"><script>'
    data |= {"against": evil, "run": {"name": evil, "machine": {"cpu": evil}, "versions": {evil: evil}}, "split": evil}
    data["curves"]["length"]["points"][0]["decoder"] = evil
    text = render(data)
    page = Page(text)
    assert not page.open
    assert not [name for name, _ in page.tags if name == "script"]
    assert page.text.count(evil) > 10
    assert len(plots(text)) == 8


def test_the_page_needs_nothing_but_itself() -> None:
    text = render(record())
    page = Page(text)
    assert "://" not in text and "@import" not in text
    assert set(re.findall(r"url\((.)", text)) == {"#"}
    names = {name for name, _ in page.tags}
    assert not names & {"script", "link", "img", "iframe", "image", "use", "object"}
    held = {key for _, attributes in page.tags for key in attributes}
    assert not held & {"src", "href", "xlink:href", "srcset", "style"} and not [
        key for key in held if key.startswith("on")
    ]


def test_the_page_says_what_everything_is() -> None:
    text = render(record())
    page = Page(text)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for plot in plots(text).values():
        assert plot.attrib["role"] == "img"
        assert plot.attrib["aria-labelledby"].split() == [plot[0].attrib["id"], plot[1].attrib["id"]]
        assert (plot[0].tag, plot[1].tag) == ("title", "desc") and all(len(part.text or "") > 5 for part in plot[:2])
    assert all("scope" in attributes for name, attributes in page.tags if name == "th")
    assert sum(name == "caption" for name, _ in page.tags) == sum(name == "table" for name, _ in page.tags)
    assert {name: attributes for name, attributes in page.tags}["html"] == {"lang": "en"}


def test_the_page_says_what_was_measured_and_where() -> None:
    text = Page(render(record())).text
    assert "scratch:tiny, float32, 561,920 parameters" in text
    assert "5,841 items, 49,251 entries in the memory" in text
    assert "vote: neighbours 200, temperature 0.125" in text
    assert text.count("Some CPU, 2 threads") == 2 and "{" not in text


def test_the_plot_for_a_readme_is_a_file_of_its_own() -> None:
    root = ElementTree.fromstring(frontier_svg(record()))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "prefers-color-scheme: dark" in (root.find("{*}style").text or "")  # type: ignore[union-attr]
    data = record()
    for one in data["rows"].values():
        del one["latency_ms"]
    with pytest.raises(DataError, match="nothing to draw"):
        frontier_svg(data)


def test_rendering_leaves_the_record_as_it_was() -> None:
    data = record()
    before = copy.deepcopy(data)
    assert render(data) == render(data) and data == before


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_marks_stand_out_from_the_paper(scheme: str) -> None:
    blocks = re.findall(r":root \{(.*?)\}", render(record()), re.DOTALL)
    colours = dict(re.findall(r"--([\w]+): (#[0-9a-f]{6})", blocks[("light", "dark").index(scheme)]))
    paper = luminance(colours["paper"])
    text = {"ink", "soft", "better", "worse", "latent", "language", "peer", "baseline", "other"}
    for name in text | {"q1", "q2", "q3", "p1", "p2", "p3"}:
        light, dark = sorted([luminance(colours[name]), paper], reverse=True)
        least = 4.5 if name in text else 2.8
        assert (light + 0.05) / (dark + 0.05) >= least, name


WIDTHS = (360, 1280)

MEASURE = """<script>
addEventListener("load", () => {
  for (const fold of document.querySelectorAll("details")) fold.open = true;
  const outside = one => !one.closest(".scroll, svg, .textures") && one.getBoundingClientRect().right > innerWidth + .5;
  const heights = [...document.querySelectorAll("svg.plot text")].map(one => one.getBoundingClientRect().height);
  parent.document.documentElement.dataset["at" + innerWidth] = JSON.stringify({
    scroll: document.documentElement.scrollWidth,
    outside: [...document.querySelectorAll("body *")].filter(outside).map(one => one.outerHTML.slice(0, 80)),
    smallest: Math.min(...heights.filter(height => height > 0)),
    paper: getComputedStyle(document.documentElement).backgroundColor,
    plots: document.querySelectorAll("svg.plot").length,
    table: document.querySelector(".headline").getBoundingClientRect().width,
  });
});
</script>"""


@pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no Chromium at {CHROMIUM}")
@pytest.mark.parametrize(("scheme", "paper"), [("light", "rgb(252, 252, 250)"), ("dark", "rgb(21, 23, 27)")])
def test_a_browser_shows_it_without_sideways_scrolling(tmp_path: Path, scheme: str, paper: str) -> None:
    data = record()
    data["rows"]["a-contestant-whose-name-never-seems-to-come-to-an-end"] = data["rows"].pop("cooccurrence")
    data["run"]["machine"]["cpu"] = "machine" * 20
    found = in_chromium(render(data).replace("</body>", f"{MEASURE}</body>"), tmp_path, scheme)
    for width in WIDTHS:
        assert found[width]["scroll"] == width and found[width]["outside"] == []
        assert found[width]["paper"] == paper and found[width]["plots"] == 8
        assert found[width]["smallest"] >= 11  # the line of a type of about nine pixels
    assert found[360]["table"] > 360  # so there was something that could have widened the page


def in_chromium(text: str, folder: Path, scheme: str) -> dict[int, dict[str, Any]]:
    """What the page's own script finds at each width. Frames, because a window cannot be narrower than 500 pixels."""
    frames = "".join(f'<iframe width="{width}" height="900" srcdoc="{escape(text)}"></iframe>' for width in WIDTHS)
    host = folder / "host.html"
    host.write_text(f'<!doctype html><meta name="color-scheme" content="light dark">{frames}', encoding="utf-8")
    quiet = "--disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    colours = f"--blink-settings=preferredColorScheme={('dark', 'light').index(scheme)}"
    profile = f"--user-data-dir={folder / 'profile'}"
    command = [
        str(CHROMIUM),
        "--headless",
        "--disable-gpu",
        "--hide-scrollbars",
        "--dump-dom",
        *root,
        *quiet.split(),
        colours,
        profile,
    ]
    done = subprocess.run([*command, host.as_uri()], capture_output=True, text=True, check=False, timeout=120)
    found = re.findall(r'data-at(\d+)="([^"]*)"', done.stdout)
    assert len(found) == len(WIDTHS), done.stderr[-2000:]
    return {int(width): json.loads(unescape(measured)) for width, measured in found}
