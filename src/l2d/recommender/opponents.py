"""What a run opens beside its latent decoders: writers of titles, trained peers and counts, each by its name."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from l2d.baselines import (
    ItemHead,
    ItemHeadConfig,
    ItemHeadTuned,
    ItemHeadTunedConfig,
    SASRec,
    SASRecConfig,
    count_decoders,
)
from l2d.decode.fit import gains
from l2d.errors import ArtifactBusy
from l2d.language import D3, Beam, Grounding, Reference, SmallDrafts, Unit
from l2d.ranking import Decoder, Requests, Rows
from l2d.recommender.drafting import open_drafter
from l2d.recommender.making import StageProgress, sample_users, silent

if TYPE_CHECKING:
    from l2d.backbone import Backbone
    from l2d.catalog import Catalog
    from l2d.prompts import Prompts
    from l2d.recommender.opening import OpenRun

FITTED_ON = 300
"""Validation examples that gamma of grounding and alpha of d3 are chosen on: each is decoded in language space."""

ALPHAS = (1.0, 0.75, 0.5, 0.25)
"""Weights of the backbone in d3 that are tried."""


@dataclass(frozen=True)
class Opponents:
    """Opens opponents of a run; what has to be trained is kept in RUN/peers.

    Args:
        run: the opened run.
        seed: of everything that is trained or drawn.
        progress: called with (stage, done, total).
    """

    run: OpenRun
    seed: int = 0
    progress: StageProgress = silent

    def open(self, name: str) -> Decoder:
        """The opponent of that name; trains it first if it is a peer that was not trained yet.

        Raises:
            ArtifactBusy: meanwhile another process changed the data that it was trained on; it is not kept.
        """
        made = OPENERS.get(name)
        if made is None:
            return count_decoders(self.run.train_evidence)[name]
        opened = made(self)
        if self._folder(name).exists() and self.run.run.read_manifest()["data"] != self.run.manifest["data"]:
            shutil.rmtree(self._folder(name))
            raise ArtifactBusy(
                f"the data of {self.run.path} changed while {name} was trained", got="something was forgotten",
                cure="load the run again and repeat this",
            )  # fmt: skip
        return opened

    def beam(self) -> Beam:
        """See `l2d.language.Beam`."""
        return Beam(*self._language, probe=self.run.probe)

    def grounding(self, beams: int = 1) -> Grounding:
        """Grounding with popularity, its weight chosen on validation."""
        popularity = self.run.train_evidence.popularity
        decoder = Grounding(*self._language, beams=beams, popularity=popularity, probe=self.run.probe)
        requests, targets = self._validation()
        decoder.fit_gamma(requests, targets, progress=partial(self.progress, "fitting grounding"))
        return decoder

    def d3(self) -> D3:
        """D3 with SASRec as its assistant, its weight chosen on validation."""
        sasrec = self.run.decoder("sasrec", seed=self.seed, progress=self.progress)
        assert isinstance(sasrec, SASRec)
        decoder = D3(*self._language, assistant=sasrec, probe=self.run.probe)
        requests, targets = self._validation()
        scores = {}
        for place, alpha in enumerate(ALPHAS):
            decoder.alpha = alpha
            scores[alpha] = gains(decoder.rank(requests, 10), targets).mean()
            self.progress("fitting d3", place + 1, len(ALPHAS))
        decoder.alpha = max(scores, key=lambda alpha: scores[alpha])
        return decoder

    def reference(self) -> Reference:
        """Grounding's text, written by copying from titles; with the popularity weight of grounding."""
        grounding = self.run.decoder("grounding", seed=self.seed, progress=self.progress)
        assert isinstance(grounding, Grounding)
        return Reference(
            *self._language,
            popularity=self.run.train_evidence.popularity,
            gamma=grounding.gamma,
            probe=self.run.probe,
        )

    def unit(self) -> Unit:
        """See `l2d.language.Unit`; drafts follow popularity."""
        return Unit(*self._language, popularity=self.run.train_evidence.popularity, probe=self.run.probe)

    def small_drafts(self) -> SmallDrafts:
        """Beam search whose steps a small backbone drafts, tuned here for the same prompts."""
        folder, progress = self._folder("small-drafts"), partial(self.progress, "training small-drafts")
        drafter = open_drafter(self.run, folder, self._identity("backbone", "prompts"), self.seed, progress)
        return SmallDrafts(*self._language, drafter=drafter, probe=self.run.probe)

    def item_head(self) -> ItemHead:
        """See `l2d.baselines.ItemHead`; trained on the training entries of the memory."""
        run = self.run
        return ItemHead.fit(
            run.train_entries,
            run.dataset.splits.valid,
            run.thoughts,
            len(run.catalog),
            ItemHeadConfig(seed=self.seed),
            self._folder("item-head"),
            identity=self._identity("backbone", "prompts"),
            device=run.backbone.device,
            progress=partial(self.progress, "training item-head"),
        )

    def item_head_tuned(self) -> ItemHeadTuned:
        """See `l2d.baselines.ItemHeadTuned`; starts from the run's backbone."""
        run, splits = self.run, self.run.dataset.splits
        scratch = run.manifest["backbone"]["name"].startswith("scratch:")
        config = ItemHeadTunedConfig() if scratch else ItemHeadTunedConfig.for_pretrained()
        return ItemHeadTuned.fit(
            splits.train,
            splits.valid,
            len(run.catalog),
            run.backbone,
            run.prompts,
            run.probe,
            config.model_copy(update={"seed": self.seed}),
            self._folder("item-head-tuned"),
            identity=self._identity("backbone", "prompts"),
            progress=partial(self.progress, "training item-head-tuned"),
        )

    def sasrec(self) -> SASRec:
        """See `l2d.baselines.SASRec`."""
        run, splits = self.run, self.run.dataset.splits
        peer = SASRec.fit(
            splits.train,
            splits.valid,
            len(run.catalog) - len(run.added),
            SASRecConfig(seed=self.seed),
            self._folder("sasrec"),
            identity=self._identity(),
            device=run.backbone.device,
            progress=partial(self.progress, "training sasrec"),
        )
        return peer.among(len(run.catalog))

    @property
    def _language(self) -> tuple[Backbone, Prompts, Catalog]:
        return self.run.backbone, self.run.prompts, self.run.catalog

    def _validation(self) -> tuple[Requests, Rows]:
        valid = sample_users(self.run.dataset.splits.valid, FITTED_ON, np.random.default_rng([self.seed, 29]))
        return Requests(valid.histories()), valid.target

    def _folder(self, name: str) -> Path:
        return self.run.run.peers / (f"{name}-seed-{self.seed}" if self.seed else name)

    def _identity(self, *parts: str) -> dict[str, str]:
        """Fingerprints of the data and of other parts of the run that a peer depends on."""
        whole = self.run.identity | {"data": self.run.manifest["data"]}
        return {part: whole[part] for part in ("data", "catalog", *parts)}


OPENERS: dict[str, Callable[[Opponents], Decoder]] = {
    "beam": Opponents.beam,
    "grounding": Opponents.grounding,
    "d3": Opponents.d3,
    "reference": Opponents.reference,
    "unit": Opponents.unit,
    "small-drafts": Opponents.small_drafts,
    "item-head": Opponents.item_head,
    "item-head-tuned": Opponents.item_head_tuned,
    "sasrec": Opponents.sasrec,
}
"""How the language decoders and the trained peers are opened."""
