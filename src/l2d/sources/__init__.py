"""Readers of real formats -> (Catalog, Interactions), and the preparation of a data set from them."""

from __future__ import annotations

from l2d.sources.columns import Columns
from l2d.sources.formats import FORMATS
from l2d.sources.preparation import prepare, read

__all__ = ["FORMATS", "Columns", "prepare", "read"]
