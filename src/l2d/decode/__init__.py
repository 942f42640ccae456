"""Thought + memory -> Rankings: global, local, vote, and the fit of their constants."""

from __future__ import annotations

from l2d.decode.fit import Constants, fit
from l2d.decode.latent import Global, Local, Vote

__all__ = ["Constants", "Global", "Local", "Vote", "fit"]
