"""What latent decoding must beat: recommenders without an LLM, behind the same contract as every decoder."""

from l2d.baselines.counts import Cooccurrence, CountDecoder, Popularity, RepeatLast, Transitions, count_decoders

__all__ = ["Cooccurrence", "CountDecoder", "Popularity", "RepeatLast", "Transitions", "count_decoders"]
