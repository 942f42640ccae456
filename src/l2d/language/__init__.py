"""Decoding in language space, which latent decoding replaces: the comparison every speed-up is measured against."""

from __future__ import annotations

from l2d.language.beam import Beam
from l2d.language.d3 import D3, Assistant
from l2d.language.grounding import Grounding
from l2d.language.reference import Reference
from l2d.language.small_drafts import SmallDrafts
from l2d.language.trie import Trie
from l2d.language.unit import Unit
from l2d.language.writing import Writer

__all__ = ["D3", "Assistant", "Beam", "Grounding", "Reference", "SmallDrafts", "Trie", "Unit", "Writer"]
