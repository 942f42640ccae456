"""Beam search drafted by a small model and verified by the large one: the same list from fewer passes of the large.

A round: the small model continues the beam search for `steps` steps on its own, keeping `drafts` hypotheses a step.
The large model reads all of them in one pass. Then the search takes its steps again, on the large model's readings
alone, for as long as the hypotheses it keeps were drafted; from the first step with one that was not, the next round
goes on. So a step is accepted when the large model's best `beams` of it lie inside the draft, and a draft changes when
something is read but never what is listed.

Small models that draft for large ones: LLM-to-SLM, arXiv 2402.16844. Drafting a beam under the catalogue's trie, with a
step accepted only as a whole: AtSpeed, arXiv 2410.05165.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from l2d.backbone import Backbone, PackProbe
from l2d.catalog import Catalog
from l2d.errors import ArtifactMismatch, ConfigError
from l2d.language.beam import Beam, PromptsAndAnswers
from l2d.language.forward import open_forward
from l2d.language.reading import Course, Reader
from l2d.language.search import Hypothesis, Search


class SmallDrafts(Beam):
    """`Beam` whose steps a small backbone drafts. Lists and scores are those of `Beam` on the large one.

    A batch drafts and verifies together: a request whose draft failed early costs the others nothing but its line.

    Args:
        backbone: the tuned backbone.
        prompts: its compiled prompts.
        catalog: the items; must be those of the prompts.
        drafter: a smaller backbone of the same tokenizer, tuned for the same prompts.
        steps: steps drafted beyond the one that has to be read anyway.
        drafts: hypotheses drafted per step; None for twice `beams`, or as many as a longer list keeps. The wider, the
            more often a step lies inside the draft and the more the large model reads.
        beams: hypotheses kept per step. A list longer than that is searched with k of them.
        batch_size: requests searched together.
        probe: what the backbone's opening probe found; None probes now. The drafter is always probed.

    Raises:
        ArtifactMismatch: the drafter has another tokenizer.
        ConfigError: steps, drafts, beams or batch_size below 1.
    """

    name = "small-drafts"

    def __init__(
        self,
        backbone: Backbone,
        prompts: PromptsAndAnswers,
        catalog: Catalog,
        *,
        drafter: Backbone,
        steps: int = 1,
        drafts: int | None = None,
        beams: int = 10,
        batch_size: int = 8,
        probe: PackProbe | None = None,
    ) -> None:
        for name, value in (("steps", steps), ("drafts", drafts)):
            if value is not None and value < 1:
                raise ConfigError(f"{name} is too small", got=value, expected="at least 1")
        refuse_other_tokens(drafter, backbone)
        super().__init__(backbone, prompts, catalog, beams=beams, batch_size=batch_size, probe=probe)
        self.drafter = open_forward(drafter)
        self.steps = steps
        self.drafts = drafts

    @torch.inference_mode()
    def _run(self, searches: Sequence[Search], prompts: Sequence[NDArray[np.int32]]) -> None:
        """Carries searches to their ends, in rounds of drafting and verifying."""
        places = [place for place, search in enumerate(searches) if search.live]
        if not places:
            return
        courses = [Course(line, searches[place]) for line, place in enumerate(places)]
        large, small = Reader(self.forward, self.meter), Reader(self.drafter, self.meter)
        for reader in (large, small):
            reader.start(courses, [prompts[place] for place in places])
        while courses:
            self._verify(courses, large)
            courses = [course for course in courses if course.search.live]
            if courses:
                large.read(self._draft(courses, small))
        self.meter.model_calls += large.calls
        self.meter.draft_calls += small.calls

    def _verify(self, courses: Sequence[Course], large: Reader) -> None:
        """Takes the steps for which the large model has read everything."""
        with self.meter.phase("search"):
            for course in courses:
                while course.search.live and large.knows(course, course.search):
                    course.step(course.search, large.known[course.line])

    def _draft(self, courses: Sequence[Course], small: Reader) -> list[tuple[Course, list[Hypothesis]]]:
        """What the large model should read: the hypotheses of the search and those that the drafter goes on to."""
        drafts = [(course, self._fork(course.search)) for course in courses]
        trees = [(course, list(course.search.live)) for course in courses]
        for _ in range(self.steps):
            small.read([(course, search.live) for course, search in drafts])
            with self.meter.phase("search"):
                for (course, search), (_, tree) in zip(drafts, trees, strict=True):
                    if search.live:
                        course.step(search, small.known[course.line])
                    tree += search.live
        return trees

    def _fork(self, search: Search) -> Search:
        fork = copy.copy(search)  # a step replaces a search's arrays and lists and changes none in place
        fork.beams = self.drafts or max(2 * self.beams, search.beams)
        # The drafter's list is as wide: with k places, a few titles it overrates would end hypotheses still needed.
        fork.k = max(search.k, fork.beams)
        return fork


def refuse_other_tokens(drafter: Backbone, backbone: Backbone) -> None:
    """Raises `ArtifactMismatch` where two backbones do not read the same token ids."""
    found, wanted = drafter.tokenizer.fingerprint, backbone.tokenizer.fingerprint
    if found != wanted:
        raise ArtifactMismatch(
            f"the drafter {drafter.name} has another tokenizer than {backbone.name}",
            got=found[:12],
            expected=wanted[:12],
            cure="draft with a smaller backbone of the same tokenizer",
        )
