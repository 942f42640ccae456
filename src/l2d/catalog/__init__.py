"""The catalogue: item_id <-> row <-> title, what else is known of items, filters on that, and the search for a page."""

from __future__ import annotations

from l2d.catalog.items import CANONICAL_INTEGER, Catalog
from l2d.catalog.metadata import Metadata

__all__ = ["CANONICAL_INTEGER", "Catalog", "Metadata"]
