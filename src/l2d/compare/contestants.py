"""What is compared: a decoder under its name, and what kind of rival it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from l2d.errors import ConfigError
from l2d.ranking import Decoder

Kind = Literal["latent", "language", "peer", "baseline"]
"""Matches thoughts; writes titles; trained for the task, of the same latency; counts."""


@dataclass(frozen=True)
class Contestant:
    """One row of a comparison.

    Args:
        name: what the row is called.
        kind: language contestants are judged on a sample of users and on shorter lists, since they search.
        decoder: what answers; its latency is the row's.
        others: the same decoder trained with other seeds; the row's quality is the mean over all of them.
    """

    name: str
    kind: Kind
    decoder: Decoder
    others: Sequence[Decoder] = ()

    @property
    def decoders(self) -> tuple[Decoder, ...]:
        """One decoder per seed."""
        return (self.decoder, *self.others)

    @property
    def needs_thoughts(self) -> bool:
        """Whether any of its decoders needs the requests' thoughts."""
        return any(decoder.needs_thoughts for decoder in self.decoders)


def check_names(contestants: Sequence[Contestant]) -> None:
    """Refuses rows that could not be told apart.

    Raises:
        ConfigError: nobody takes part, or two under one name.
    """
    names = [contestant.name for contestant in contestants]
    if not names or len(set(names)) < len(names):
        raise ConfigError("contestants must have different names", got=names, expected="at least one, each once")
