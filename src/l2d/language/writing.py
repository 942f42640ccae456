"""Writing text freely after prompts: greedy or by beam search over the whole vocabulary, with no catalogue in mind.

The rule of the search, equal to greedy decoding for one beam. A hypothesis scores the sum of its tokens'
log-probabilities, without length normalisation. In each step the best `beams` continuations of all hypotheses that
do not end live on; those that end and are among the best `beams` of the step, ending ones included, are finished. A
hypothesis of `longest` tokens is finished without an end. Scores only fall, so a hypothesis below the best finished
one is dropped, and the best finished one is the answer when none is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from l2d.backbone import Backbone, PackProbe
from l2d.costs import Meter, Phase
from l2d.errors import ConfigError
from l2d.language.forward import PROMPT, Chain, Forward, open_forward

TokenIds = NDArray[np.int32]


class Draft(NamedTuple):
    """A text that is still being written.

    Args:
        parent: place of the draft it continues, among those of the step before.
        tokens: its token ids; the last one is read in the next pass.
        score: sum of their log-probabilities.
    """

    parent: int
    tokens: tuple[int, ...]
    score: float


class Writer:
    """Writes one text per prompt. Keys and values are held in `forward`: one `write` at a time.

    Args:
        backbone: the tuned backbone.
        end: the token that ends a text.
        longest: most tokens of a text, its end not counted.
        beams: hypotheses; 1 is greedy decoding.
        forward: how the model is read; None opens the backbone's.
        probe: what the backbone's opening probe found; None probes now.

    Raises:
        ConfigError: beams or longest below 1.

    Attributes:
        meter: seconds by phase and forward passes, running until who measures resets it.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        end: int,
        longest: int,
        beams: int = 1,
        forward: Forward | None = None,
        probe: PackProbe | None = None,
    ) -> None:
        for name, value in (("beams", beams), ("longest", longest)):
            if value < 1:
                raise ConfigError(f"{name} is too small", got=value, expected="at least 1")
        self.end = end
        self.longest = longest
        self.beams = beams
        self.forward = forward or open_forward(backbone, probe)
        self.meter = Meter()

    @torch.inference_mode()
    def write(self, prompts: Sequence[TokenIds]) -> list[TokenIds]:
        """The best text behind each prompt, all in the same forward passes; the caller makes batches.

        Args:
            prompts: token ids of each prompt.

        Returns:
            Token ids of each text without its end; empty where the text ended at once.
        """
        if not prompts:
            return []
        pages = [Page(self.end, self.longest, self.beams) for _ in prompts]
        with self.meter.phase("prefill"):
            logits = self.forward.start(prompts)
        phase: Phase = "prefill"
        live = list(range(len(pages)))
        while True:
            self.meter.model_calls += 1
            self._advance([pages[place] for place in live], logits, phase)
            live = [place for place in live if pages[place].drafts]
            if not live:
                return [np.array(page.best, dtype=np.int32) for page in pages]
            with self.meter.phase("search"):
                chains = [chain for place in live for chain in pages[place].chains(place)]
            with self.meter.phase("decode"):
                logits = self.forward.extend(chains)
            phase = "decode"

    def _advance(self, pages: Sequence[Page], logits: torch.Tensor, phase: Phase) -> None:
        with self.meter.phase(phase):
            scores, tokens = likeliest(logits, self.beams)
        with self.meter.phase("search"):
            start = 0
            for page in pages:
                stop = start + len(page.drafts)
                page.advance(scores[start:stop], tokens[start:stop])
                start = stop


class Page:
    """The search of one text, without the model.

    Args:
        end: the token that ends a text.
        longest: most tokens of a text.
        beams: drafts kept per step.
    """

    def __init__(self, end: int, longest: int, beams: int) -> None:
        self.end = end
        self.longest = longest
        self.beams = beams
        self.drafts = [Draft(PROMPT, (), 0.0)]
        self.best: tuple[int, ...] = ()
        self.score = -np.inf

    def chains(self, request: int) -> list[Chain]:
        """The tokens to read in the next pass."""
        ids = [np.array(draft.tokens, dtype=np.int32) for draft in self.drafts]
        return [
            Chain(request, draft.parent, tokens[:-1], tokens[-1:])
            for draft, tokens in zip(self.drafts, ids, strict=True)
        ]

    def advance(self, scores: NDArray[np.float64], tokens: NDArray[np.int64]) -> None:
        """Makes the step.

        Args:
            scores: log-probabilities of each draft's likeliest tokens, best first. Shape: (drafts, candidates).
            tokens: those tokens. Shape: (drafts, candidates).
        """
        total = scores + np.array([draft.score for draft in self.drafts])[:, None]
        order = np.lexsort((tokens.ravel(), -total.ravel()))
        grown: list[Draft] = []
        for flat in order.tolist():
            parent, place = divmod(flat, tokens.shape[1])
            written, score = self.drafts[parent].tokens, float(total[parent, place])
            token = int(tokens[parent, place])
            if token != self.end:
                grown.append(Draft(parent, (*written, token), score))
            else:  # among the best `beams` of the step, or behind another that ended with a better score
                self._finish(written, score)
            if len(grown) == self.beams:
                break
        if grown and len(grown[0].tokens) == self.longest:
            self._finish(grown[0].tokens, grown[0].score)
        self.drafts = [draft for draft in grown if draft.score > self.score]

    def _finish(self, tokens: tuple[int, ...], score: float) -> None:
        if score > self.score:
            self.best, self.score = tokens, score


def likeliest(logits: torch.Tensor, beams: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The tokens of each line that a search of so many beams can need, with their log-probabilities in fp32.

    As many as there are beams, the end among them: what is less likely than a line's end is worse than a finished text.

    Args:
        logits: Shape: (lines, vocabulary).
        beams: hypotheses kept per step.

    Returns:
        Log-probabilities, falling, and tokens. Shape: (lines, candidates) each.
    """
    logits = logits.float()
    if beams == 1:
        best, tokens = logits.max(dim=-1, keepdim=True)  # the first of equal ones, as argmax has it
    else:
        best, tokens = logits.topk(min(beams, logits.shape[-1]), dim=-1)
    scores = best - logits.logsumexp(dim=-1, keepdim=True)
    return scores.double().cpu().numpy(), tokens.cpu().numpy()
