"""Last states at few positions, by the shortest way that is right for a model on this machine."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from l2d.backbone.reading import ReadingLayer, can_read_short, is_reviewed, states_at
from l2d.backbone.reordered import ReorderedLinear, reordering_pays


class Reader:
    """A model without its head that hands out its last states at a few positions.

    It computes on a copy of the tree of modules that shares weights and hooks with the model, which stays as it is.

    Args:
        base: the model.
        attention: name of its attention implementation.
        window: tokens that its sliding-window layers see, or None.
        settled: whether the weights stay as they are from here on. Then large linear layers of reviewed families on a
            CPU get a reordered copy of theirs, which is multiplied faster.
        compiler: a backend of `torch.compile`, for processes that live long enough for its minute of compiling at the
            first prompts to pay; it arranges weights itself.
    """

    def __init__(
        self, base: nn.Module, attention: str, window: int | None, *, settled: bool, compiler: str | None = None
    ) -> None:
        self.short = can_read_short(base, attention, window)
        reorder = settled and compiler is None and is_reviewed(base)
        self._base: Any = _shadow(base, _reordered if reorder else _same)
        if self.short:
            *others, last = self._base.layers  # type: ignore[misc]
            self._base._modules["layers"] = nn.ModuleList([*others, ReadingLayer(last)])
        if compiler is not None:
            self._base = torch.compile(self._base, backend=compiler, dynamic=True)

    def __call__(self, ids: torch.Tensor, read: torch.Tensor, **arguments: Any) -> torch.Tensor:
        """See `Backbone.states_at`."""
        if self.short:
            return self._base(input_ids=ids, read=read, **arguments).last_hidden_state
        return states_at(self._base(input_ids=ids, **arguments).last_hidden_state, read)


def _shadow(module: nn.Module, replace: Callable[[nn.Module], nn.Module]) -> nn.Module:
    copied = replace(module)
    if copied is module:
        copied = copy.copy(module)
        copied._modules = {name: part and _shadow(part, replace) for name, part in module._modules.items()}
    return copied


def _same(module: nn.Module) -> nn.Module:
    return module


def _reordered(module: nn.Module) -> nn.Module:
    return ReorderedLinear(module) if type(module) is nn.Linear and reordering_pays(module) else module
