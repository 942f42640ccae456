"""What latent decoding must beat: counts, and peers that are trained, behind the same contract as every decoder."""

from __future__ import annotations

from l2d.baselines.counts import Cooccurrence, CountDecoder, Popularity, RepeatLast, Transitions, count_decoders
from l2d.baselines.item_head import ItemHead, ItemHeadConfig
from l2d.baselines.item_head_tuned import ItemHeadTuned, ItemHeadTunedConfig
from l2d.baselines.sasrec import SASRec, SASRecConfig

__all__ = [
    "Cooccurrence",
    "CountDecoder",
    "ItemHead",
    "ItemHeadConfig",
    "ItemHeadTuned",
    "ItemHeadTunedConfig",
    "Popularity",
    "RepeatLast",
    "SASRec",
    "SASRecConfig",
    "Transitions",
    "count_decoders",
]
