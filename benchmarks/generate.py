"""Beam search as people do it today: transformers' `generate`, held to the catalogue by `prefix_allowed_tokens_fn`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch

from l2d.backbone import Backbone
from l2d.costs import Meter
from l2d.prompts import Prompts
from l2d.ranking import NOTHING, Rankings, Requests


class Generate:
    """One `generate` call per request, with a dictionary from a path to the tokens that may follow it.

    The dictionary is made once for the whole catalogue, as the repositories of D3 and BIGRec do; a token that leads to
    excluded titles alone is not offered. Rows of equal titles follow each other in row order, as in l2d's own beam.

    Args:
        backbone: the tuned backbone.
        prompts: its compiled prompts.
        items: catalogue size.
        beams: hypotheses. However long a list is asked for, so many titles are found and no more: a search with fifty
            beams takes a second on two cores.
    """

    name = "generate"
    needs_thoughts = False

    def __init__(self, backbone: Backbone, prompts: Prompts, items: int, *, beams: int = 10) -> None:
        self.backbone, self.prompts, self.items, self.beams = backbone, prompts, items, beams
        self.meter = Meter()
        self.rows: dict[tuple[int, ...], list[int]] = defaultdict(list)
        following: dict[tuple[int, ...], set[int]] = defaultdict(set)
        for row in range(items):
            path = tuple(prompts.answer(row).tolist())
            self.rows[path].append(row)
            for place, token in enumerate(path):
                following[path[:place]].add(token)
        self.following = {path: sorted(tokens) for path, tokens in following.items()}
        self.longest = max(map(len, self.rows))
        backbone.base.register_forward_hook(self._count)

    def _count(self, *_: object) -> None:
        self.meter.model_calls += 1

    def rank(self, requests: Requests, k: int) -> Rankings:
        """The k best titles of each request, as far as the beams found them."""
        lists = []
        for index, history in enumerate(requests.histories):
            barred = np.flatnonzero(~requests.candidates(index, self.items)).tolist()
            lists.append(self._one(self.prompts.prompt(history), k, set(barred)))
        rows = np.full((len(lists), k), NOTHING, dtype=np.int32)
        scores = np.full((len(lists), k), -np.inf, dtype=np.float32)
        for line, (found, likely) in enumerate(lists):
            rows[line, : len(found)], scores[line, : len(found)] = found, likely
        return Rankings(rows, scores)

    @torch.inference_mode()
    def _one(self, prompt: np.ndarray, k: int, barred: set[int]) -> tuple[list[int], list[float]]:
        start, beams = len(prompt), self.beams
        end = self.prompts.end_id
        narrowed = self._narrowed(barred)
        if narrowed.get(()) == []:
            return [], []

        def allowed(_: int, ids: torch.Tensor) -> Sequence[int]:
            path = tuple(ids[start:].tolist())
            return narrowed.get(path, self.following.get(path)) or [end]

        ids = torch.from_numpy(prompt.astype(np.int64))[None].to(self.backbone.device)
        with self.meter.phase("decode"):
            out = self.backbone.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                num_beams=beams,
                num_return_sequences=beams,
                prefix_allowed_tokens_fn=allowed,
                max_new_tokens=self.longest,
                length_penalty=0.0,
                do_sample=False,
                return_dict_in_generate=True,
                output_scores=True,
                eos_token_id=end,
                pad_token_id=end,
            )
            sequences, likely = out.sequences[:, start:].tolist(), out.sequences_scores.tolist()
        with self.meter.phase("search"):
            return self._listed(sequences, likely, k, barred)

    def _narrowed(self, barred: set[int]) -> dict[tuple[int, ...], list[int]]:
        """What may still follow a path, where that is less than without barred rows."""
        left: dict[tuple[int, ...], list[int]] = {}
        for path in {tuple(self.prompts.answer(row).tolist()) for row in barred}:
            if not barred.issuperset(self.rows[path]):
                continue
            for place in range(len(path) - 1, -1, -1):
                before = path[:place]
                left[before] = [token for token in left.get(before, self.following[before]) if token != path[place]]
                if left[before]:
                    break
        return left

    def _listed(
        self, sequences: list[list[int]], likely: list[float], k: int, barred: set[int]
    ) -> tuple[list[int], list[float]]:
        found: list[int] = []
        scores: list[float] = []
        end = self.prompts.end_id
        for ids, score in zip(sequences, likely, strict=True):
            path = tuple(ids[: ids.index(end) + 1]) if end in ids else tuple(ids)
            fresh = [row for row in self.rows.get(path, ()) if row not in found and row not in barred]
            found += fresh
            scores += [score] * len(fresh)
        return found[:k], scores[:k]
