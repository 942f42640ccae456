"""Thought + memory -> Rankings: global, local, vote, auto, and the fit of their constants."""

from __future__ import annotations

from l2d.decode.auto import Auto, Materials, Recipe
from l2d.decode.calibrate import Calibration, calibrate, enough
from l2d.decode.classes import Spread, TitleMap
from l2d.decode.fit import Constants, fit
from l2d.decode.latent import Global, Local, Vote

__all__ = [
    "Auto",
    "Calibration",
    "Constants",
    "Global",
    "Local",
    "Materials",
    "Recipe",
    "Spread",
    "TitleMap",
    "Vote",
    "calibrate",
    "enough",
    "fit",
]
