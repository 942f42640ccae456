"""HTML and SVG as text that escapes itself."""

from __future__ import annotations

from html import escape

Value = str | float | int


class Markup(str):
    """Text that is markup already. Any other string is escaped when it becomes part of a tag."""

    __slots__ = ()


VOID = {"meta", "br", "hr", "col"}
"""Elements without content, which HTML never closes."""


def tag(name: str, /, *children: str | None, **attributes: Value | bool | None) -> Markup:
    """One element.

    A trailing underscore of an attribute's name is dropped and the others become hyphens: `class_`, `stroke_width`,
    `aria_label`. An attribute of None or False is left out, True stands alone.

    Args:
        name: of the element.
        children: content in order; None is left out.
        attributes: their values are escaped, numbers are written short.
    """
    inside = "".join(escaped(child) for child in children if child is not None)
    opening = "".join(_attribute(key, value) for key, value in attributes.items())
    return Markup(f"<{name}{opening}>" if name in VOID else f"<{name}{opening}>{inside}</{name}>")


def join(*parts: str | None, between: str = "") -> Markup:
    """Parts in a row, each escaped unless it is markup; None is left out."""
    return Markup(escaped(between).join(escaped(part) for part in parts if part is not None))


def escaped(text: str) -> Markup:
    """The text as markup, fit for content and for quoted attributes."""
    return text if isinstance(text, Markup) else Markup(escape(text, quote=True))


def short(value: float) -> str:
    """A coordinate to a hundredth of a pixel, without trailing zeros."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _attribute(key: str, value: Value | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    if value is True:
        return f' {name}=""'
    return f' {name}="{escaped(value if isinstance(value, str) else short(value))}"'
