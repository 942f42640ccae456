"""The Recommender: the verbs of l2d over a run directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from l2d.artifacts import WriterLock
from l2d.compare import Comparison, Contestant, Plan
from l2d.decode import Calibration
from l2d.errors import ConfigError
from l2d.interactions import Dataset, SplitName
from l2d.memory import MemoryInfo
from l2d.memory.ledger import DType
from l2d.recommender.adding import Added, Item, put_items
from l2d.recommender.calibrating import calibrate_run
from l2d.recommender.comparing import compare_run
from l2d.recommender.living import LivingRun
from l2d.recommender.making import Notice, StageProgress, adopt_run, silent, tune_run
from l2d.recommender.measuring import Report, measure
from l2d.recommender.opening import DECODERS, open_parts
from l2d.recommender.remembering import fit_constants, remember
from l2d.run import Run
from l2d.thoughts import check_engine
from l2d.tuning import TuningConfig

__all__ = ["DECODERS", "Recommender"]


class Recommender(LivingRun):
    """A run directory and what can be done with it. Make one with `tune`, `adopt` or `load`."""

    @classmethod
    def tune(
        cls,
        data: Path | str | Dataset,
        *,
        backbone: str,
        out: Path | str,
        template: str | None = None,
        config: TuningConfig | None = None,
        lora: bool = False,
        epochs: int | None = None,
        learning_rate: float | None = None,
        seed: int | None = None,
        max_title_tokens: int = 48,
        revision: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        resume: bool = False,
        overwrite: bool = False,
        progress: StageProgress = silent,
        notice: Notice = silent,
    ) -> Recommender:
        """Tunes a backbone to write the next item's title, and makes a run of it.

        Args:
            data: a prepared folder, or a Dataset.
            backbone: hub name, folder, or `scratch:tiny`, `scratch:small`, `scratch:base`.
            out: the run directory.
            template: `compact` (default for scratch), `instruct` (default else) or a TOML file.
            config: tuning options; None for the defaults of the kind of backbone.
            lora: tune an adapter only.
            epochs: instead of the configuration's.
            learning_rate: instead of the configuration's.
            seed: instead of the configuration's.
            max_title_tokens: longer titles are cut to this many tokens.
            revision: commit of the hub repository.
            device: `auto`, `cpu`, `cuda`, ...
            dtype: `auto`, `float32` or `bfloat16`.
            resume: go on from the newest complete checkpoint in `out`.
            overwrite: delete the run that is in `out`.
            progress: called with (stage, done, total).
            notice: called with lines for people.

        Raises:
            ArtifactExists: `out` holds something, and neither `resume` nor `overwrite`.
            ArtifactMismatch: `resume` with other options or data than it was begun with.
            ConfigError: options that cannot work.
        """
        dataset = data if isinstance(data, Dataset) else Dataset.load(Path(data))
        scratch = backbone.startswith("scratch:")
        if scratch and lora:
            raise ConfigError(
                "random weights need more than an adapter", got=f"--lora with {backbone}", cure="leave it out"
            )
        config = config or (TuningConfig.for_scratch() if scratch else TuningConfig.for_pretrained(lora=lora))
        config = config.with_values(epochs=epochs, learning_rate=learning_rate, seed=seed)
        tune_run(
            dataset, Run(Path(out)), backbone, template=template, config=config, max_title_tokens=max_title_tokens,
            revision=revision, device=device, dtype=dtype, resume=resume, overwrite=overwrite,
            progress=progress, notice=notice,
        )  # fmt: skip
        return cls.load(out, device=device)

    @classmethod
    def adopt(
        cls,
        data: Path | str | Dataset,
        *,
        backbone: str,
        template: str,
        out: Path | str,
        adapter: Path | None = None,
        max_title_tokens: int = 48,
        revision: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        overwrite: bool = False,
        progress: StageProgress = silent,
        notice: Notice = silent,
    ) -> Recommender:
        """Makes a run of a model that was tuned elsewhere; nothing is trained.

        Arguments and errors as in `tune`; `adapter` is a PEFT folder. A notice says how likely the model finds the
        answers of 200 validation samples, and warns where shuffled histories do no worse: the sign of a wrong prompt.
        """
        dataset = data if isinstance(data, Dataset) else Dataset.load(Path(data))
        adopt_run(
            dataset, Run(Path(out)), backbone, template=template, adapter=adapter, max_title_tokens=max_title_tokens,
            revision=revision, device=device, dtype=dtype, overwrite=overwrite, notice=notice,
        )  # fmt: skip
        return cls.load(out, device=device)

    @classmethod
    def load(
        cls,
        run: Path | str,
        *,
        device: str = "auto",
        verify: bool = True,
        engine: str = "auto",
        compiled: bool = False,
        reuse_bytes: int = 0,
        approximate: bool = False,
        writer: bool = False,
        progress: StageProgress = silent,
        notice: Notice = silent,
    ) -> Recommender:
        """Opens a run directory. One that is written to is closed in the end, by `close` or a `with` block.

        Args:
            run: the folder.
            device: `auto`, `cpu`, `cuda`, ...
            verify: compare every file with its checksum, and the weights with their fingerprint.
            engine: what thinks: `torch`, `openvino`, `vllm`, `vllm=http://HOST:PORT`; `auto` takes an OpenVINO export
                that is in the run where it is faster, else torch.
            compiled: whether torch compiles the model at the first requests, which takes a minute; for long-lived
                processes.
            reuse_bytes: most memory for keys and values of single requests to `recommend`, so that users who come back
                with a longer history are answered faster; torch alone. Thoughts then differ by rounding.
            approximate: whether local and vote may find neighbours by a FAISS index, where a memory has a million
                entries and FAISS is installed; a notice says what share of them it finds.
            writer: whether interactions are added to it, or anything is forgotten; one process may at a time. What an
                earlier writer left unfinished is finished.
            progress: called with (stage, done, total).
            notice: called with the engine that was picked, and with warnings.

        Raises:
            ArtifactBusy: another process writes to it.
            InputError: the engine cannot be used here.
            ArtifactMissing: no run, or an unfinished one.
            ArtifactCorrupt: a file changed.
            ArtifactMismatch: parts that do not belong together.
        """
        check_engine(engine)
        place = Run(Path(run))
        place.read_manifest()  # before a lock file is put into a folder that is no run
        with ExitStack() as stack:
            lock = stack.enter_context(WriterLock(place.writer)) if writer else None
            parts = open_parts(place, device=device, verify=verify, engine=engine, compiled=compiled, notice=notice)
            opened = cls(*parts, approximate=approximate, reuse_bytes=reuse_bytes)
            stack.callback(opened.close)
            if lock is not None:
                opened.begin_writing(lock, progress)
            stack.pop_all()
        return opened

    def __enter__(self) -> Recommender:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def build_memory(
        self,
        *,
        through: str = "train",
        dtype: DType = "float16",
        overwrite: bool = False,
        progress: StageProgress = silent,
        notice: Notice = silent,
    ) -> MemoryInfo:
        """Thinks every training prompt into the memory and fits the decoders' constants; goes on where it was stopped.

        A memory that is built anew gets its live entries back: they are thought again.

        Args:
            through: `train`, `valid` (train and validation) or `all`; evaluation refuses a split that is in the memory.
            dtype: `float16` or `float32`, of the stored thoughts.
            overwrite: build anew.
            progress: called with (stage, done, total).
            notice: called with lines for people.

        Raises:
            ArtifactMismatch: a memory of other samples or another backbone is there.
            ArtifactBusy: another process writes to the run.
            DataError: a thought does not fit `dtype`.
        """
        calibrated = self.run.constants.is_file() and self.run.calibration.is_file()
        with self.alone() as lock:
            self.reopen()
            remember(self, through=through, dtype=dtype, overwrite=overwrite, progress=progress)
            fit_constants(self, progress)
            self.catch_up(lock, progress)
        local, vote, tau = (
            self.constants.local_neighbours,
            self.constants.vote_neighbours,
            self.constants.vote_temperature,
        )
        notice(f"fitted on validation: local M = {local}; vote M = {vote}, tau = {tau:.3g}")
        if calibrated:
            notice(f"auto and recall have to be fitted to it again: l2d calibrate {self.path}")
        return self.memory_info()

    def calibrate(self, *, seed: int = 0, progress: StageProgress = silent) -> Calibration:
        """Fits auto and recall on validation and makes auto the decoder that answers where none is named.

        Args:
            seed: of the validation sample and of the halves that the held-out figure is made with.
            progress: called with (stage, done, total).

        Returns:
            What was chosen for auto; `constants.recall` has the other.

        Raises:
            ArtifactMissing: no memory yet.
        """
        with self.alone():
            found = calibrate_run(self, seed=seed, progress=progress)
        for name in ("constants", "auto", "recall"):
            self.__dict__.pop(name, None)
        return found

    def add_items(self, titles: Mapping[str, str], *, progress: StageProgress = silent) -> Added:
        """Adds items to the catalogue by their titles alone; nothing is trained, the prepared data stays as it is.

        They may stand in histories at once. auto recommends them where validation found it worth while (`newcomer`);
        of a run that is not calibrated yet, after `calibrate`.

        Args:
            titles: by item id.
            progress: called with (stage, done, total).

        Raises:
            DataError: an id is known under another title, or a title has no tokens.
        """
        return self.put_items([Item(item, title) for item, title in titles.items()], progress=progress)

    def put_items(self, items: Sequence[Item], *, progress: StageProgress = silent) -> Added:
        """Adds items to the catalogue, and sets metadata of new and of known ones: all of it or nothing.

        Args:
            items: as they are to be. A known item keeps its title; of its metadata what is not named stays, and None
                takes a value away.
            progress: called with (stage, done, total).

        Raises:
            DataError: an id is known under another title or stands twice, a title has no tokens, impossible metadata.
            ArtifactBusy: another process writes to the run.
        """
        with self.alone():
            return put_items(self, items, progress=progress)

    def evaluate(
        self,
        decoders: Sequence[str] | None = None,
        *,
        split: SplitName = "valid",
        users: int | None = None,
        exclude_seen: bool = False,
        seed: int = 0,
        timing: bool = True,
        progress: StageProgress = silent,
        notice: Notice = silent,
    ) -> Report:
        """Quality, slices and single-request times of decoders on a split.

        Args:
            decoders: names; None for global, local, vote, auto where it is calibrated, popularity and cooccurrence.
            split: `valid` or `test`.
            users: examples of a seeded sample, the same for every decoder; None for all.
            exclude_seen: whether the items of an example's history are excluded, also where requests are timed; items
                that were trimmed from it are not.
            seed: of the sample and the intervals.
            timing: whether single requests are timed, in turn.
            progress: called with (stage, done, total).
            notice: called with lines for people.

        Raises:
            ConfigError: the memory holds this split's targets, an unknown decoder, or users below 1.
        """
        if not decoders:
            decoders = ["global", "local", *dict.fromkeys(("vote", self.usual)), "popularity", "cooccurrence"]
        return measure(
            self, decoders,
            split=split, users=users, exclude_seen=exclude_seen, seed=seed, timing=timing,
            progress=progress, notice=notice,
        )  # fmt: skip

    def compare(
        self,
        decoders: Sequence[str] | None = None,
        *,
        split: SplitName = "test",
        users: int | None = 1000,
        exclude_seen: bool = False,
        seed: int = 0,
        seeds: int = 1,
        timed: int = 100,
        curves: bool = True,
        extra: Sequence[Contestant] = (),
        progress: StageProgress = silent,
        notice: Notice = silent,
    ) -> Comparison:
        """Measures decoders and their opponents in one run; trains the opponents that were not trained yet.

        Args:
            decoders: names, all others being tested against the first; None for every one that is fitted.
            split: `valid` or `test`.
            users: examples that language decoders are asked about, a seeded sample; None for all.
            exclude_seen: as in `evaluate`, for every row and curve.
            seed: of the sample, the tests and what is trained.
            seeds: how often peers are trained, with this seed and the next ones.
            timed: single requests that are timed per decoder, in turn; 0 for none.
            curves: whether to measure quality against M and against memory, and latency against the list's length.
            extra: rows of the caller's own.
            progress: called with (stage, done, total).
            notice: called with lines for people.

        Raises:
            ConfigError: an unknown decoder, users or seeds below 1, or not a split to measure on.
            ArtifactMismatch: the memory holds this split's targets.
        """
        plan = Plan(split=split, users=users, exclude_seen=exclude_seen, seed=seed, timed=timed)
        return compare_run(
            self, self.every_decoder() if decoders is None else decoders, plan,
            seeds=seeds, curves=curves, extra=extra, progress=progress, notice=notice,
        )  # fmt: skip
