"""Titles as a model should read them: entities, tags, control characters and blanks are put right, words stay."""

from __future__ import annotations

import html
import re
import unicodedata
from html.entities import html5

# Only whole entities: html.unescape by itself takes "Rock&reggae" for "Rock&reg;gae", with a semicolon or without.
ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});")

# Only names of real tags, so that "A <Love> Story" and "I <3 you" stay.
TAG_NAMES = (
    "a|b|big|br|center|div|em|font|h[1-6]|hr|i|img|li|ol|p|pre|s|"
    "script|small|span|strong|style|sub|sup|table|td|tr|u|ul"
)
TAG = re.compile(rf"</?(?:{TAG_NAMES})(?:\s[^<>]*)?/?>", re.IGNORECASE)

# Scraped attributes leave a tag that never closes (`<span class="a-size-medium"`), or its end (`... Blues" />`).
OPEN_TAG = re.compile(rf"<(?:{TAG_NAMES})\s+[\w-]+\s*=.*$", re.IGNORECASE | re.DOTALL)
TAG_END = re.compile(r"[\"']?\s*/>\s*$")

# Amazon 2018 has a few hundred titles that are the page's JavaScript: `var aPageStart = (new Date()).getTime();`.
SCRIPT = re.compile(r"\bgetTime\(")

# Invisible marks (soft hyphen, zero width blank, direction marks, BOM); joiners stay, emoji and Persian need them.
INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")


def clean_title(raw: str) -> str:
    """One title, cleaned; empty when nothing but markup was there.

    Cleaning twice changes nothing more.
    """
    text, before = raw, ""
    while text != before:  # "&amp;amp;" needs two rounds, and each round makes the text shorter or leaves it
        before, text = text, _round(text)
    return text


def _round(raw: str) -> str:
    text = ENTITY.sub(_character, raw)
    text = TAG_END.sub("", OPEN_TAG.sub("", TAG.sub(" ", text)))
    if SCRIPT.search(text):
        return ""
    text = INVISIBLE.sub("", unicodedata.normalize("NFC", text))
    text = "".join(" " if unicodedata.category(letter) in ("Cc", "Cs") else letter for letter in text)
    return " ".join(text.split())


def _character(entity: re.Match[str]) -> str:
    text = entity.group()
    return html.unescape(text) if text[1] == "#" else html5.get(text[1:], text)


def cut_words(title: str, limit: int | None) -> str:
    """The first words of a title; None: all of them."""
    return title if limit is None else " ".join(title.split()[:limit])
