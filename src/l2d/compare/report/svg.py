"""Marks, axes and legends as SVG; colours and type sizes come from the style sheet."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from l2d.compare.report.markup import Markup, join, short, tag
from l2d.compare.report.scales import Scale

WIDTH = 480.0
"""Of every plot in its own pixels. A phone shows it at two thirds, so type is set larger there (`plots.css`)."""

GLYPH = 8.2
"""Pixels to plan for a character: the type of the phone's layout, which is the larger one."""

LEADING = 18.0
"""Pixels from one line of type to the next."""

ROUND = 0.5523
"""Control points of the cubic that draws a quarter of a circle."""


@dataclass(frozen=True)
class Area:
    """The rectangle inside the axes. Coordinates grow to the right and downwards."""

    left: float
    top: float
    right: float
    bottom: float


def picture(ident: str, title: str, description: str, height: float, *content: str | None) -> Markup:
    """A whole plot with its name and description for those who hear it."""
    return tag(
        "svg",
        tag("title", title, id=f"{ident}-title"),
        tag("desc", description, id=f"{ident}-desc"),
        *content,
        class_="plot",
        viewBox=f"0 0 {short(WIDTH)} {short(height)}",
        role="img",
        aria_labelledby=f"{ident}-title {ident}-desc",
    )


def words(x: float, y: float, content: str, class_: str = "label", anchor: str = "start") -> Markup:
    """Text with its baseline at y; anchor is start, middle or end."""
    return tag("text", content, x=x, y=y, class_=class_, text_anchor=None if anchor == "start" else anchor)


def rule(x1: float, y1: float, x2: float, y2: float, class_: str = "grid") -> Markup:
    """A straight line."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def trace(points: Iterable[tuple[float, float]], class_: str) -> Markup:
    """A line through points."""
    return tag("polyline", points=" ".join(f"{short(x)},{short(y)}" for x, y in points), class_=class_)


def outline(shape: str, size: float) -> str:
    """The path of a mark around (0, 0); all shapes look equally heavy at the same size.

    Shapes: circle, square, triangle, diamond, cross, hexagon.
    """
    if shape == "circle":
        c = short(size * ROUND)
        r = short(size)
        return f"M-{r},0C-{r},-{c} -{c},-{r} 0,-{r}S{r},-{c} {r},0S{c},{r} 0,{r}S-{r},{c} -{r},0Z"
    if shape == "cross":
        arm, half = size * 1.15, size * 0.36
        steps = [(-half, -arm), (half, -arm), (half, -half), (arm, -half), (arm, half), (half, half)]
        corners = [*steps, *((-x, -y) for x, y in steps)]
    else:
        count, turn, scale = {
            "square": (4, 45, 1.27),
            "triangle": (3, 90, 1.4),
            "diamond": (4, 0, 1.35),
            "hexagon": (6, 30, 1.1),
        }[shape]
        angles = [math.radians(turn + 360 / count * place) for place in range(count)]
        corners = [(scale * size * math.cos(angle), -scale * size * math.sin(angle)) for angle in angles]
    return "M" + "L".join(f"{short(x)},{short(y)}" for x, y in corners) + "Z"


def mark(shape: str, x: float, y: float, class_: str, title: str | None = None, size: float = 4.5) -> Markup:
    """A mark at a point, with the words that appear under the pointer."""
    words_ = None if title is None else tag("title", title)
    where = f"translate({short(x)} {short(y)})"
    return tag("path", words_, d=outline(shape, size), transform=where, class_=f"mark {class_}")


def value_axis(area: Area, scale: Scale, labels: Sequence[str], name: str) -> Markup:
    """Horizontal grid lines with their values on the left, and what they are above the topmost."""
    lines = [rule(area.left, scale(tick), area.right, scale(tick)) for tick in scale.ticks]
    numbers = [
        words(area.left - 7, scale(tick) + 4, label, "tick", "end")
        for tick, label in zip(scale.ticks, labels, strict=True)
    ]
    return tag("g", *lines, *numbers, words(0, area.top - 17, name, "axis"), class_="axes")


def base_axis(area: Area, scale: Scale, labels: Sequence[str], name: str, *, grid: bool = False) -> Markup:
    """Ticks below the area and what they are; a label that would touch the one before it is left out."""
    parts = []
    free = -math.inf
    for tick, label in zip(scale.ticks, labels, strict=True):
        x, half = scale(tick), len(label) * GLYPH / 2
        parts.append(rule(x, area.top if grid else area.bottom, x, area.bottom + 4, "grid" if grid else "stub"))
        if x - half > free:
            parts.append(words(x, area.bottom + LEADING, label, "tick", "middle"))
            free = x + half + 4
    name_ = words((area.left + area.right) / 2, area.bottom + 2.2 * LEADING, name, "axis", "middle")
    return tag("g", rule(area.left, area.bottom, area.right, area.bottom, "base"), *parts, name_, class_="axes")


def legend(entries: Sequence[tuple[Markup, str]], left: float = 0.0, top: float = 14.0) -> tuple[Markup, float]:
    """Signs with their meaning, in as many lines as they need.

    Args:
        entries: each a sign drawn around (0, 0) and its meaning.
        left: where each line begins.
        top: baseline of the first line.

    Returns:
        The legend and the baseline of its last line.
    """
    parts = []
    x = left
    for sign, meaning in entries:
        wide = 20 + len(meaning) * GLYPH
        if x > left and x + wide > WIDTH:
            x, top = left, top + LEADING
        parts.append(tag("g", sign, transform=f"translate({short(x + 7)} {short(top - 4.5)})"))
        parts.append(words(x + 18, top, meaning, "key"))
        x += wide + 12
    return tag("g", *parts, class_="legend"), top


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places at least `gap` apart, close to those wanted, in the same order; within the bounds if they fit."""
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    places = [wanted[index] for index in order]
    floor = low
    for place, value in enumerate(places):
        places[place] = floor = max(value, floor)
        floor += gap
    ceiling = high
    for place in reversed(range(len(places))):
        places[place] = ceiling = min(places[place], ceiling)
        ceiling -= gap
    return [place for _, place in sorted(zip(order, places, strict=True))]


def clipped(name: str, longest: int = 18) -> str:
    """A name that fits the margin."""
    return name if len(name) <= longest else name[: longest - 1] + "…"


def group(*parts: str | None, class_: str | None = None) -> Markup:
    """Parts drawn one over the other."""
    return tag("g", join(*parts), class_=class_)
