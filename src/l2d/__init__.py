"""Latent-space decoding for LLM recommenders: the thought of one prefill is matched with items, nothing is generated.

The public names are imported on first use, so that `import l2d` costs nothing and leaves torch alone.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from l2d.catalog import Catalog
    from l2d.errors import L2DError
    from l2d.evaluate import evaluate
    from l2d.interactions import Dataset, Examples, Interactions
    from l2d.ranking import Rankings, Requests
    from l2d.recommender import Recommender
    from l2d.sources import prepare

__version__ = "0.1.0"

__all__ = [
    "Catalog",
    "Dataset",
    "Examples",
    "Interactions",
    "L2DError",
    "Rankings",
    "Recommender",
    "Requests",
    "__version__",
    "evaluate",
    "prepare",
]

HOMES = {
    "Catalog": "l2d.catalog",
    "Dataset": "l2d.interactions",
    "Examples": "l2d.interactions",
    "Interactions": "l2d.interactions",
    "L2DError": "l2d.errors",
    "Rankings": "l2d.ranking",
    "Recommender": "l2d.recommender",
    "Requests": "l2d.ranking",
    "evaluate": "l2d.evaluate",
    "prepare": "l2d.sources",
}
"""Which module each public name comes from."""


def __getattr__(name: str) -> object:
    if name not in HOMES:
        raise AttributeError(f"module 'l2d' has no attribute {name!r}")
    return getattr(import_module(HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(ModuleType):
    """The package as a module on which `l2d.evaluate` is the function, whoever imports the module of that name."""

    def __setattr__(self, name: str, value: object) -> None:
        if name in HOMES and isinstance(value, ModuleType):
            return  # the import system sets each submodule on its package; `from l2d.evaluate import ...` needs no such
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
