"""Copy and verify (LLMA, arXiv 2304.04487): greedy decoding that reads several copied tokens in one pass.

What a recommender writes is a title, and titles are known: those of the history stand in the prompt, the others in the
catalogue. A pass reads the token just written and, behind it, what the references hold next:

- the history's: what follows the last place in the prompt where the latest `match` written tokens stand, or fewer;
- the catalogue's: the path below what is written that holds most titles (by popularity, where it is given).

Copied tokens stay as far as each is the model's own best choice; the first that is not is replaced by that choice, so a
pass writes at least one token, and the text is that of greedy decoding. In bfloat16 a pass over more tokens rounds
differently, and two choices that are equal up to that may change places.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from l2d.costs import Meter
from l2d.errors import ConfigError
from l2d.language.forward import PROMPT, Chain, Forward
from l2d.language.prior import Prior, leaf_weights
from l2d.language.trie import Trie

TokenIds = NDArray[np.int32]


class References:
    """The titles to copy from.

    Args:
        trie: the catalogue's.
        copied: tokens copied from a reference, at most.
        match: written tokens looked for in the prompt, at most.
        popularity: weight of each row in choosing among titles; None for the same. Shape: (items,).
    """

    def __init__(
        self, trie: Trie, copied: int = 8, match: int = 3, popularity: NDArray[np.integer] | None = None
    ) -> None:
        for name, value in (("copied", copied), ("match", match)):
            if value < 1:
                raise ConfigError(f"{name} is too small", got=value, expected="at least 1")
        self.trie = trie
        self.copied = copied
        self.match = match
        self._leaves = np.arange(len(trie), dtype=np.int64)
        self._prior = Prior(self._leaves, leaf_weights(trie, popularity))

    def from_prompt(self, prompt: TokenIds, written: Sequence[int]) -> TokenIds:
        """What follows the latest written tokens in the prompt, at their last place; the longest match decides."""
        for length in range(min(self.match, len(written), len(prompt) - 1), 0, -1):
            windows = np.lib.stride_tricks.sliding_window_view(prompt[:-1], length)
            places = np.flatnonzero((windows == np.array(written[-length:])).all(axis=1))
            if len(places):
                start = int(places[-1]) + length
                return prompt[start : start + self.copied]
        return prompt[:0]

    def from_catalogue(self, written: Sequence[int]) -> TokenIds:
        """How titles that begin with what is written go on, end token included; nothing where there are none."""
        low, high = self._below(written)
        depth = len(written)
        while low < high - 1 and depth < len(written) + self.copied:
            children = self.trie.children(self._leaves, low, high, depth)
            child, _ = self._prior.heaviest(children)
            low, high, depth = int(children.low[child]), int(children.high[child]), depth + 1
        if low == high:
            return self.trie.tokens[0, :0]
        stop = min(len(written) + self.copied, int(self.trie.lengths[low]))
        return self.trie.tokens[low, len(written) : stop]

    def _below(self, written: Sequence[int]) -> tuple[int, int]:
        """The leaves that begin with what is written."""
        low, high = 0, len(self.trie)
        for depth, token in enumerate(written):
            if depth == self.trie.tokens.shape[1]:
                return low, low
            column = self.trie.tokens[low:high, depth]
            low, high = low + int(np.searchsorted(column, token)), low + int(np.searchsorted(column, token, "right"))
        return low, high


class CopyingWriter:
    """Writes the greedy text of each prompt, copying from references. One `write` at a time.

    Args:
        forward: the model.
        references: what to copy from.
        end: the token that ends a text.
        longest: most tokens of a text, its end not counted.

    Attributes:
        meter: seconds by phase and forward passes, running until who measures resets it.
    """

    def __init__(self, forward: Forward, references: References, *, end: int, longest: int) -> None:
        self.forward = forward
        self.references = references
        self.end = end
        self.longest = longest
        self.meter = Meter()

    @torch.inference_mode()
    def write(self, prompts: Sequence[TokenIds]) -> list[TokenIds]:
        """The greedy text behind each prompt, all in the same forward passes; the caller makes batches.

        Returns:
            Token ids of each text without its end; empty where the text ended at once.
        """
        if not prompts:
            return []
        pages = [Page(prompt, self.references, self.end, self.longest) for prompt in prompts]
        with self.meter.phase("prefill"):
            choices = _best(self.forward.start(prompts))
        live = list(range(len(pages)))
        while True:
            self.meter.model_calls += 1
            with self.meter.phase("search"):
                stops = np.cumsum([pages[place].lines for place in live])[:-1]
                for place, part in zip(live, np.split(choices, stops), strict=True):
                    pages[place].accept(part)
                live = [place for place in live if not pages[place].done]
                chains = [chain for place in live for chain in pages[place].chains(place)]
            if not live:
                return [np.array(page.written, dtype=np.int32) for page in pages]
            with self.meter.phase("decode"):
                choices = _best(self.forward.extend(chains))


class Page:
    """One text while it is written, without the model.

    Args:
        prompt: token ids of its prompt.
        references: what to copy from.
        end: the token that ends a text.
        longest: most tokens of a text.
    """

    def __init__(self, prompt: TokenIds, references: References, end: int, longest: int) -> None:
        self.prompt = prompt
        self.references = references
        self.end = end
        self.longest = longest
        self.written: list[int] = []
        self.done = False
        self._drafts: list[TokenIds] = []
        self._place = PROMPT  # of the last token that was read and stays, as in `Chain.after`
        self._given = 0

    @property
    def lines(self) -> int:
        """Lines of logits that the pass just made gave this text: behind its last token and behind every copy."""
        return 1 + sum(len(draft) for draft in self._drafts)

    def chains(self, request: int) -> list[Chain]:
        """The tokens to read in the next pass: the last one written, and behind it each draft."""
        read, last = np.array(self.written[:-1], dtype=np.int32), np.array(self.written[-1:], dtype=np.int32)
        copies = [self.references.from_prompt(self.prompt, self.written), self.references.from_catalogue(self.written)]
        room = self.longest - len(self.written) - 1  # the choice behind the copies is written too
        self._drafts = _distinct([copy[:room] for copy in copies])
        before, self._place = self._place, self._given
        self._given += self.lines
        behind = np.concatenate([read, last])
        drafts = [Chain(request, PROMPT, behind, draft, self._place) for draft in self._drafts]
        return [Chain(request, PROMPT, read, last, before), *drafts]

    def accept(self, choices: NDArray[np.int64]) -> None:
        """Writes the copies that the model would have chosen, and the choice behind them.

        Args:
            choices: the model's best token at each line of the pass. Shape: (lines,).
        """
        start, kept, then, place = 1, self.prompt[:0], int(choices[0]), self._place
        for draft in self._drafts:
            own = np.concatenate([choices[:1], choices[start : start + len(draft)]])
            same = int(np.argmin(np.append(own[:-1] == draft, False)))  # how many copies are the model's own choice
            if same > len(kept):
                kept, then, place = draft[:same], int(own[same]), self._place + start + same - 1
            start += len(draft)
        self._place = place
        for token in [*kept.tolist(), then]:
            self.done = token == self.end
            if self.done:
                return
            self.written.append(token)
        self.done = len(self.written) >= self.longest


def _distinct(copies: Sequence[TokenIds]) -> list[TokenIds]:
    """The copies that hold a token and are not the beginning of another, the first of equals."""
    longest_first = sorted(copies, key=len, reverse=True)
    kept: list[TokenIds] = []
    for copy in longest_first:
        if len(copy) and not any((other[: len(copy)] == copy).all() for other in kept):
            kept.append(copy)
    return kept


def _best(logits: torch.Tensor) -> NDArray[np.int64]:
    """The likeliest token of each line. Shape: (lines,)."""
    return logits.float().argmax(dim=-1).cpu().numpy()
