"""Thought + memory -> Rankings: global, local, vote, auto, recall, and the fit of their constants."""

from __future__ import annotations

from l2d.decode.auto import Auto, Materials, Recipe
from l2d.decode.calibrate import Calibration, calibrate, enough
from l2d.decode.classes import Spread, TitleMap
from l2d.decode.fit import Constants, fit
from l2d.decode.latent import Global, Local, Vote
from l2d.decode.recall import Recall, after_items, calibrate_recall, recalled

__all__ = [
    "Auto",
    "Calibration",
    "Constants",
    "Global",
    "Local",
    "Materials",
    "Recall",
    "Recipe",
    "Spread",
    "TitleMap",
    "Vote",
    "after_items",
    "calibrate",
    "calibrate_recall",
    "enough",
    "fit",
    "recalled",
]
