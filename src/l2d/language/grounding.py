"""Grounding (BIGRec, arXiv 2308.08434): write a title freely, then take the items whose titles lie nearest to it.

A text is represented by the last-layer state of its last token when it stands alone behind the template's opening.
Titles and written texts are represented alike, and a written text that is a title of the catalogue has that title's
state: it needs no pass of the model and lies at distance 0. Texts are kept as token ids and not spelled out and
tokenised again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from l2d.backbone import Backbone, PackProbe, probe_packing
from l2d.catalog import Catalog
from l2d.costs import Meter
from l2d.decode.fit import gains
from l2d.errors import ConfigError, DataError
from l2d.language.beam import longest_first
from l2d.language.writing import Writer
from l2d.prompts import Prompts
from l2d.ranking import NOTHING, Rankings, Requests, Rows, top_k
from l2d.thoughts import TorchThinker

GAMMAS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
"""Exponents to try; the authors search from .01 to 99."""

CUT = 10

TokenIds = NDArray[np.int32]


class TextWriter(Protocol):
    """What grounding needs of `l2d.language.writing.Writer`."""

    meter: Meter

    def write(self, prompts: Sequence[TokenIds]) -> list[TokenIds]:
        """Token ids of one text per prompt, without its end."""
        ...


class Grounding:
    """Ranks items by the distance of their titles to a freely written one.

    Score = -distance, Euclidean. With a popularity, BIGRec's injection: distances are scaled to 0..1 over the
    catalogue for each request, popularity likewise (training examples, 0 for the rarest item, 1 for the most frequent),
    and score = -distance * (1 + popularity)^-gamma. Filters act on the list and change no score. Rows of equal titles
    tie, unless popularity tells them apart.

    Args:
        backbone: the tuned backbone.
        prompts: its compiled prompts.
        catalog: the items; must be those of the prompts.
        beams: hypotheses of the writing, 1 or 4 in the paper; the best one's text is grounded.
        batch_size: requests written together.
        popularity: training examples of each item; None for no injection. Shape: (items,).
        gamma: strength of the injection; `fit_gamma` finds it on validation.
        writer: writes the texts instead of free generation with `beams`.
        probe: what the backbone's opening probe found; None probes now.

    Raises:
        ConfigError: batch_size or beams below 1, gamma negative.
        DataError: popularity is not one finite number per item.

    Attributes:
        meter: seconds by phase and forward passes: the writer's, to which reading the written texts is added.
    """

    name = "grounding"
    needs_thoughts = False

    def __init__(
        self,
        backbone: Backbone,
        prompts: Prompts,
        catalog: Catalog,
        *,
        beams: int = 1,
        batch_size: int = 8,
        popularity: NDArray[np.integer] | None = None,
        gamma: float = 0.0,
        writer: TextWriter | None = None,
        probe: PackProbe | None = None,
    ) -> None:
        if batch_size < 1 or gamma < 0:
            raise ConfigError("batch_size or gamma is too small", got=(batch_size, gamma), expected="at least 1, 0")
        probe = probe or probe_packing(backbone, longest=min(1024, backbone.context))
        self.prompts = prompts
        self.batch_size = batch_size
        self.gamma = gamma
        self.popularity = None if popularity is None else scaled_popularity(popularity, len(catalog))
        self.writer: TextWriter = writer or Writer(
            backbone, end=prompts.end_id, longest=prompts.longest_title, beams=beams, probe=probe
        )
        self._titles = [prompts.title(row).tobytes() for row in range(len(catalog))]
        self._place = {title: place for place, title in enumerate(dict.fromkeys(self._titles))}
        self._title_of_row = np.array([self._place[title] for title in self._titles])
        # All texts of a batch fit in one pack, so that reading them is one forward pass.
        room = batch_size * (len(prompts.opening) + prompts.longest_title + 1)
        self._reader = TorchThinker(backbone, probe, pack_tokens=room, batch_tokens=room)
        self._title_reader = TorchThinker(backbone, probe)

    @property
    def meter(self) -> Meter:
        """Seconds by phase and forward passes, running until who measures resets it."""
        return self.writer.meter

    @cached_property
    def title_states(self) -> torch.Tensor:
        """State of each distinct title, read when first needed and not metered. Shape: (titles, width), float32."""
        opening = self.prompts.opening
        texts = [np.concatenate([opening, np.frombuffer(title, dtype=np.int32)]) for title in self._place]
        return torch.from_numpy(self._title_reader.think(texts)).to(self._title_reader.backbone.device)

    def rank(self, requests: Requests, k: int, progress: Callable[[int, int], None] | None = None) -> Rankings:
        """Writes one title per request and lists the k items nearest to it.

        Args:
            requests: histories with their filters; thoughts are not read.
            k: list length.
            progress: called with (requests done, all).

        Raises:
            ConfigError: k below 1.
        """
        if k < 1:
            raise ConfigError("k is too small", got=k, expected="at least 1")
        rows = np.full((len(requests), k), NOTHING, dtype=np.int32)
        scores = np.full((len(requests), k), -np.inf, dtype=np.float32)
        for batch, distances in self._distances(requests, progress):
            ranked = self._rank(requests.take(batch), distances, self.gamma, k)
            rows[batch], scores[batch] = ranked.rows, ranked.scores
        return Rankings(rows, scores)

    def fit_gamma(
        self,
        requests: Requests,
        targets: Rows,
        grid: Sequence[float] = GAMMAS,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[float, float]:
        """Sets gamma to the grid's best by NDCG@10; the earlier one wins a tie. The texts are written once.

        Args:
            requests: validation requests, filtered as real ones will be.
            targets: the row that came next. Shape: (requests,).
            grid: gammas to try.
            progress: called with (requests written, all).

        Returns:
            NDCG@10 by gamma.

        Raises:
            ConfigError: no popularity was given, nothing to fit on, or a negative gamma.
        """
        if self.popularity is None or not len(requests) or len(targets) != len(requests) or not grid or min(grid) < 0:
            raise ConfigError(
                "nothing to fit gamma on",
                got=f"{len(requests)} requests, {len(targets)} targets, gammas {list(grid)}",
                expected="a popularity, requests with their targets and gammas of at least 0",
            )
        gained = dict.fromkeys(grid, 0.0)
        for batch, distances in self._distances(requests, progress):
            for gamma in gained:
                ranked = self._rank(requests.take(batch), distances, gamma, CUT)
                gained[gamma] += float(gains(ranked, targets[batch]).sum())
        self.gamma = max(gained, key=lambda gamma: gained[gamma])
        return {gamma: total / len(requests) for gamma, total in gained.items()}

    def _distances(
        self, requests: Requests, progress: Callable[[int, int], None] | None
    ) -> Iterator[tuple[list[int], NDArray[np.float32]]]:
        """Batch by batch: places of requests, and how far each distinct title is. Shape: (batch, titles)."""
        states, done = self.title_states, 0
        with self.meter.phase("tokenise"):
            prompts = [self.prompts.prompt(history) for history in requests.histories]
        for batch in longest_first(prompts, self.batch_size):
            texts = self._text_states(self.writer.write([prompts[index] for index in batch]))
            with self.meter.phase("search"):
                # By differences: the product form loses the small distances, which are what is ranked by.
                distances = torch.cdist(texts, states, compute_mode="donot_use_mm_for_euclid_dist").cpu().numpy()
            yield batch, distances
            done += len(batch)
            if progress is not None:
                progress(done, len(prompts))

    def _text_states(self, texts: Sequence[TokenIds]) -> torch.Tensor:
        """States of written texts; those that are no title are read. Shape: (texts, width)."""
        with self.meter.phase("search"):
            places = [self._place.get(text.astype(np.int32).tobytes(), NOTHING) for text in texts]
            states = self.title_states[torch.tensor(places)]
            strange = [index for index, place in enumerate(places) if place == NOTHING]
        if strange:
            with self.meter.phase("decode"):
                self.meter.model_calls += 1
                read = self._reader.think([np.concatenate([self.prompts.opening, texts[index]]) for index in strange])
                states[strange] = torch.from_numpy(read).to(states.device)
        return states

    def _rank(self, requests: Requests, distances: NDArray[np.float32], gamma: float, k: int) -> Rankings:
        with self.meter.phase("search"):
            allowed = None
            if requests.filtered:
                items = len(self._title_of_row)
                allowed = np.stack([requests.candidates(index, items) for index in range(len(requests))])
            return top_k(self._scores(distances, gamma), k, allowed)

    def _scores(self, distances: NDArray[np.float32], gamma: float) -> NDArray[np.float32]:
        """Scores of all items, from the distances of the distinct titles. Shape: (batch, items)."""
        if self.popularity is None:
            return -distances[:, self._title_of_row]
        low, high = distances.min(axis=1, keepdims=True), distances.max(axis=1, keepdims=True)
        scaled = (distances - low) / np.where(high > low, high - low, np.float32(1))
        weighed = scaled[:, self._title_of_row] * (1 + self.popularity) ** -gamma
        return -weighed.astype(np.float32)


def scaled_popularity(popularity: NDArray[np.integer], items: int) -> NDArray[np.float64]:
    """Training examples per item, scaled so that the rarest item has 0 and the most frequent 1. Shape: (items,).

    Raises:
        DataError: not one finite number per item.
    """
    counts = np.asarray(popularity, dtype=np.float64)
    if counts.shape != (items,) or not np.isfinite(counts).all():
        raise DataError("popularity must be one finite number per item", got=counts.shape, expected=(items,))
    spread = counts.max() - counts.min()
    return np.asarray((counts - counts.min()) / (spread or 1.0))
