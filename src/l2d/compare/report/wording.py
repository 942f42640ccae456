"""Numbers as people read them."""

from __future__ import annotations

import math

MINUS, TIMES = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"
NONE = "\N{EN DASH}"
"""Stands where there is no figure."""


def rate(value: float | None, digits: int = 4) -> str:
    """A share of 1 without the leading zero: .1240."""
    if value is None:
        return NONE
    text = f"{abs(value):.{digits}f}".removeprefix("0")
    return f"{MINUS if value < 0 and set(text) - set('.0') else ''}{text}"


def signed(value: float | None, digits: int = 4) -> str:
    """A difference with its sign: +.0280."""
    if value is None:
        return NONE
    text = rate(value, digits)
    return text if text.startswith(MINUS) or not set(text) - set(".0") else f"+{text}"


def amount(value: float | None) -> str:
    """Two or three leading digits, thousands with commas: 0.11, 5.1, 27.4, 131, 12,800."""
    if value is None:
        return NONE
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if magnitude >= 2:
        return f"{value:,.0f}".replace("-", MINUS)
    return f"{value:.{1 if magnitude >= 0 else 1 - magnitude}f}".replace("-", MINUS)


def ticked(value: float) -> str:
    """A tick of an axis of amounts, as short as it is exact: 0.5, 20, 1,000."""
    return f"{value:,.10f}".rstrip("0").rstrip(".").replace("-", MINUS)


def rate_ticks(ticks: tuple[float, ...]) -> list[str]:
    """Ticks of an axis of rates, all with the digits that the finest of them needs: 0, .05, .10."""
    digits = max(len(f"{tick:.6f}".rstrip("0").partition(".")[2]) for tick in ticks)
    return [rate(tick, digits) if tick else "0" for tick in ticks]


def probability(value: float | None) -> str:
    """A p value, never rounded to 0."""
    if value is None:
        return NONE
    return "< .001" if value < 0.001 else rate(value, 3)


def count(value: float | None) -> str:
    """A whole number with commas."""
    return NONE if value is None else f"{value:,.0f}"


def listed(words: list[str], joint: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {joint} {words[-1]}" if words else ""
