"""Decoding in language space, which latent decoding replaces: the comparison every speed-up is measured against."""

from __future__ import annotations

from l2d.language.beam import Beam, BeamStats
from l2d.language.trie import Trie

__all__ = ["Beam", "BeamStats", "Trie"]
