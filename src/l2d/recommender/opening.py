"""A run directory, opened: its parts checked against each other, its memory, constants and decoders at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2d.artifacts import sha256_file
from l2d.backbone import Backbone, MaskForm, PackProbe
from l2d.catalog import Catalog
from l2d.compare import Kind
from l2d.decode import Auto, Constants, Global, Local, Recall, Vote
from l2d.errors import ArtifactCorrupt, ArtifactMissing, ConfigError
from l2d.evidence import Evidence
from l2d.interactions import Dataset, block_start
from l2d.memory import Entries, ItemVectors, Memory, aggregate
from l2d.memory.nearest import Indexed
from l2d.prompts import Prompts
from l2d.ranking import Decoder, Requests
from l2d.recommender.adding import read_beside
from l2d.recommender.calibrating import open_materials, open_recall
from l2d.recommender.making import Notice, StageProgress, silent
from l2d.recommender.opponents import Opponents
from l2d.recommender.reading import OTHER_FILES, read_data
from l2d.run import Run, check_same
from l2d.thoughts import Engine, Ground, Thinker, TorchThinker, choose_engine

DECODERS: dict[str, Kind] = {
    "global": "latent",
    "local": "latent",
    "vote": "latent",
    "auto": "latent",
    "recall": "latent",
    "beam": "language",
    "grounding": "language",
    "d3": "language",
    "reference": "language",
    "unit": "language",
    "small-drafts": "language",
    "item-head": "peer",
    "item-head-tuned": "peer",
    "sasrec": "peer",
    "transitions": "baseline",
    "cooccurrence": "baseline",
    "repeat-last": "baseline",
    "popularity": "baseline",
}
"""Every decoder that a run can answer with, by kind; the order is that of a comparison."""

REMEMBERING = ("global", "local", "vote", "auto", "recall", "item-head")
"""Decoders that answer from the memory, or were trained on it."""


def check_names(names: Sequence[str]) -> None:
    """Refuses what no run can answer with, before anything is opened or trained.

    Raises:
        ConfigError: an unknown decoder.
    """
    for name in names:
        if name not in DECODERS:
            raise ConfigError("unknown decoder", got=repr(name), expected=", ".join(DECODERS))


Parts = tuple[Run, dict[str, Any], Dataset, Backbone, Prompts, PackProbe, Engine, Notice]


class OpenRun:
    """The parts of a run that belong together.

    Args:
        run: where it lies.
        manifest: what it was made from.
        dataset: the prepared data.
        backbone: the tuned backbone.
        prompts: the compiled prompts.
        probe: how the backbone takes packs.
        engine: what thinks.
        notice: called with lines for people.
        approximate: whether local and vote may find neighbours by an index.
        reuse_bytes: most memory for keys and values of former requests that were recommended for.
    """

    def __init__(
        self,
        run: Run,
        manifest: dict[str, Any],
        dataset: Dataset,
        backbone: Backbone,
        prompts: Prompts,
        probe: PackProbe,
        engine: Engine,
        notice: Notice,
        *,
        approximate: bool = False,
        reuse_bytes: int = 0,
    ) -> None:
        self.run = run
        self.manifest = manifest
        self.dataset = dataset
        self.backbone = backbone
        self.prompts = prompts
        self.probe = probe
        self.engine = engine
        self._notice = notice
        self.approximate = approximate
        self._reuse_bytes = reuse_bytes
        self.tuned_prompts, self.tuned_catalog = prompts, dataset.catalog
        self._opponents: dict[tuple[str, int], Decoder] = {}
        self.begin(dataset)

    def begin(self, dataset: Dataset) -> None:
        """Goes over to data as prepared, and to the items that the manifest says were added to them."""
        self.manifest, dataset, added, described = read_beside(self.run, self.manifest, dataset)
        self.read(replace(dataset, catalog=self.tuned_catalog), self.tuned_prompts)
        self.added, self.described = added, described
        if len(self.added):
            self.extend(self.catalog.extended(dict(zip(self.added["item_id"], self.added["title"], strict=True))))
        if len(self.described):
            self.dataset = replace(self.dataset, catalog=self.catalog.overlaid(self.described))

    def extend(self, catalog: Catalog) -> None:
        """Goes over to a catalogue that has more items behind those of this one."""
        more = catalog.titles[len(self.catalog) :]
        self.read(replace(self.dataset, catalog=catalog), self.prompts.extended(self.backbone.tokenizer, more))

    def read(self, dataset: Dataset, prompts: Prompts) -> None:
        """Goes over to other data and prompts; what was made of the former ones is forgotten."""
        self.dataset, self.prompts = dataset, prompts
        for name in ("entries", "train_entries", "item_vectors", "train_evidence", "evidence", "auto", "recall"):
            self.__dict__.pop(name, None)
        self._opponents.clear()

    @property
    def path(self) -> Path:
        """The run directory."""
        return self.run.path

    @property
    def thinker(self) -> Thinker:
        """What thinks."""
        return self.engine.thinker

    @cached_property
    def answering(self) -> Thinker:
        """What thinks where something is recommended; what is measured or kept must not depend on former requests."""
        if not self._reuse_bytes or self.engine.name != "torch":
            return self.thinker
        return TorchThinker(self.backbone, self.probe, opening=self.prompts.opening, reuse_bytes=self._reuse_bytes)

    @property
    def catalog(self) -> Catalog:
        """The items."""
        return self.dataset.catalog

    @cached_property
    def longest_history(self) -> int:
        """Most items of a history in the data; a request's history is trimmed to it in the same blocks."""
        return self.dataset.longest_history

    @cached_property
    def memory(self) -> Memory:
        """The finished memory.

        Raises:
            ArtifactMissing: not built yet.
            ArtifactMismatch: built by another backbone, prompt or catalogue.
        """
        if not self.run.memory.is_dir():
            raise ArtifactMissing(f"{self.path} has no memory", cure=f"run `l2d memory build {self.path}` first")
        memory = Memory.open(self.run.memory, expected=self.identity)
        self._mention_engine(memory)
        return memory

    def _mention_engine(self, memory: Memory) -> None:
        thought_by = memory.metadata.get("engine", "torch")
        if thought_by != self.engine.name:
            self._notice(
                f"the memory was thought by {thought_by}, requests by {self.engine.name}: "
                "lists may differ a little, see docs/engines.md"
            )

    @cached_property
    def entries(self) -> Entries:
        """The memory's entries in working form."""
        return self.memory.entries(self.catalog)

    @cached_property
    def item_vectors(self) -> ItemVectors:
        """Mean thoughts of the items."""
        return aggregate(self.entries, len(self.catalog))

    @cached_property
    def train_evidence(self) -> Evidence:
        """Counts of the training split."""
        return Evidence.learn(self.dataset.splits.train, len(self.catalog))

    @cached_property
    def evidence(self) -> Evidence:
        """Counts that auto answers from."""
        return self.train_evidence

    @cached_property
    def constants(self) -> Constants:
        """M and tau as fitted on validation.

        Raises:
            ArtifactMissing: not fitted yet.
            ArtifactCorrupt: `decoder.json` changed.
        """
        cure = f"run `l2d memory build {self.path}` again"
        file = self.run.part(self.run.constants.name, self.manifest)
        if not file.is_file():
            raise ArtifactMissing(f"{file} is not there", cure=cure)
        if sha256_file(file) != self.manifest.get("constants"):
            raise ArtifactCorrupt(f"{file} was changed since it was fitted", cure=cure)
        return Constants.load(file)

    @cached_property
    def auto(self) -> Auto:
        """The decoder auto.

        Raises:
            ArtifactMissing: not calibrated yet.
            ArtifactCorrupt: what was calibrated changed.
        """
        materials = open_materials(self)
        assert self.constants.auto is not None
        return Auto(materials, self.constants.auto.recipe)

    @cached_property
    def recall(self) -> Recall:
        """The decoder recall; raises as `auto`, also where the calibration knows no recall yet."""
        return open_recall(self)

    @property
    def calibrated(self) -> bool:
        """Whether auto is fitted.

        Raises:
            ArtifactMissing: not even the memory's constants are.
        """
        return self.constants.auto is not None

    @property
    def usual(self) -> str:
        """The decoder that answers where none is named: auto once it is calibrated, else vote."""
        return "auto" if self.calibrated else "vote"

    def every_decoder(self) -> list[str]:
        """All of `DECODERS`, auto and recall only where they are calibrated."""
        fitted = {"auto": self.calibrated, "recall": self.constants.recall is not None}
        return [name for name in DECODERS if fitted.get(name, True)]

    @cached_property
    def train_entries(self) -> Entries:
        """The memory's entries of the training split, whatever else it holds."""
        return self.entries.take(np.flatnonzero(self.dataset.splits.train.places(self.entries.sample) >= 0))

    @property
    def identity(self) -> dict[str, str]:
        """Fingerprints that a memory must have been built with."""
        return {
            "backbone": self.manifest["backbone"]["fingerprint"],
            "prompts": self.manifest["prompt"],
            "catalog": self.manifest["catalog"],
        }

    def decoder(
        self,
        name: str,
        *,
        neighbours: int | None = None,
        temperature: float | None = None,
        seed: int = 0,
        progress: StageProgress = silent,
    ) -> Decoder:
        """A decoder by its name; M and tau replace the fitted constants.

        A peer that was not trained yet is trained and kept in the run; opponents stay open for the next call.

        Args:
            name: a key of `DECODERS`.
            neighbours: M of local or vote.
            temperature: tau of vote.
            seed: of what is trained.
            progress: called with (stage, done, total).

        Raises:
            ConfigError: no such decoder, or a constant that it does not have.
        """
        check_names([name])
        if (neighbours is not None and name not in ("local", "vote")) or (temperature is not None and name != "vote"):
            raise ConfigError(f"{name} has no such constant", got="--neighbours or --temperature", cure="leave it out")
        if name == "global":
            return Global(self.item_vectors)
        if name == "local":
            m = self.constants.local_neighbours if neighbours is None else neighbours
            return Local(self.entries, self.item_vectors, m, approximate=self._indexed())
        if name == "vote":
            m = self.constants.vote_neighbours if neighbours is None else neighbours
            tau = self.constants.vote_temperature if temperature is None else temperature
            return Vote(self.entries, self.item_vectors, m, tau, approximate=self._indexed())
        if name == "auto":
            return self.auto
        if name == "recall":
            return self.recall
        if (name, seed) not in self._opponents:
            self._opponents[name, seed] = Opponents(self, seed, progress).open(name)
        return self._opponents[name, seed]

    def _indexed(self) -> bool:
        """Whether neighbours come from an index; the first time, makes it and says what it finds."""
        if self.approximate and "indexed" not in self.entries.__dict__:
            points, entries = self.entries.indexed, len(self.entries)
            how = f"an index finds {points.recall:.1%} of them" if isinstance(points, Indexed) else "searched exactly"
            self._notice(f"neighbours among {entries:,} entries: {how}")
        return self.approximate

    def rows(self, history: Sequence[str | int]) -> NDArray[np.int32]:
        """Rows of ids or titles.

        Raises:
            UnknownItem: one of them is neither; suggests the nearest titles.
        """
        return np.array([self.catalog.find(item) for item in history], dtype=np.int32)

    def trimmed(self, rows: NDArray[np.int32]) -> NDArray[np.int32]:
        """The newest rows of a history, cut in blocks as the training histories were."""
        return rows[int(block_start(np.array([len(rows)]), self.longest_history)[0]) :]

    def thoughts(self, histories: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
        """What the backbone thinks of histories of rows. Shape: (histories, width)."""
        return self.thinker.think([self.prompts.prompt(history) for history in histories])

    def requests(self, histories: Sequence[NDArray[np.int32]], *, think: bool, **filters: Any) -> Requests:
        """Requests of rows, with thoughts where a decoder needs them."""
        return Requests(histories, self.thoughts(histories) if think else None, **filters)


PROBED = 8
"""Validation prompts that an engine is compared and timed on."""


def open_parts(place: Run, *, device: str, verify: bool, engine: str, compiled: bool, notice: Notice) -> Parts:
    """See `Recommender.load`."""
    manifest, dataset = read_data(place, verify=verify)
    described = manifest["backbone"]
    backbone = _open_backbone(place, described, device)
    if verify:
        check_same("backbone", backbone.fingerprint, described["fingerprint"], cure=OTHER_FILES)
    prompts = Prompts.load(place.prompt, backbone.tokenizer, dataset.catalog)
    check_same("prompt", prompts.fingerprint, manifest["prompt"], cure=OTHER_FILES)
    form = MaskForm(described["form"]) if described["form"] else None
    probe = PackProbe(form, 0.0, described["probe"])

    def some_prompts() -> list[NDArray[np.int32]]:
        valid = dataset.splits.valid
        places = np.linspace(0, len(valid) - 1, min(PROBED, len(valid))).astype(int)
        return [prompts.prompt(valid.history(int(place))) for place in places]

    settled = backbone.settle("inductor" if compiled else None)
    thinker = TorchThinker(settled, probe, opening=prompts.opening)
    ground = Ground(thinker, place.engines, described["fingerprint"], some_prompts)
    chosen = choose_engine(engine, ground, notice)
    notice(f"engine: {chosen.reason}")
    return place, manifest, dataset, backbone, prompts, probe, chosen, notice


def _open_backbone(run: Run, described: dict[str, Any], device: str) -> Backbone:
    """Full weights from the run, or the named hub revision with the run's adapter."""
    reference = run.backbone / "base.json"
    if not reference.is_file():
        return Backbone.open(run.backbone, dtype=described["dtype"], device=device).named(
            described["name"], described["revision"]
        )
    adapter = run.backbone / "adapter"
    return Backbone.open(
        described["name"],
        revision=described["revision"],
        adapter=adapter if adapter.is_dir() else None,
        dtype=described["dtype"],
        device=device,
    )
