"""Thought + memory -> Rankings: global, local, vote, auto, recall; lists for strangers; the fit of their constants."""

from __future__ import annotations

from l2d.decode.auto import Auto, Materials, Recipe
from l2d.decode.calibrate import Calibration, calibrate, enough
from l2d.decode.classes import Spread, TitleMap
from l2d.decode.cold import USUAL_HALF_LIFE, Cold, Fading, fit_fading
from l2d.decode.fit import Constants, fit
from l2d.decode.latent import Global, Local, Vote
from l2d.decode.recall import Recall, after_items, calibrate_recall, recalled

__all__ = [
    "USUAL_HALF_LIFE",
    "Auto",
    "Calibration",
    "Cold",
    "Constants",
    "Fading",
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
    "fit_fading",
    "recalled",
]
