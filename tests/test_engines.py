"""Which engine thinks: what is asked for, what auto takes and says, what a memory remembers of it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from fake_vllm import FakeVllm, serving
from l2d import Recommender
from l2d.errors import ArtifactMismatch, ConfigError, EngineError, InputError, MissingDependency, OutOfSpace
from l2d.thoughts import OpenVinoThinker, TorchThinker, VllmThinker, check_engine, choosing
from l2d.thoughts.agreement import Agreement, agreement
from l2d.thoughts.choosing import SPEEDS
from shop import flipped, ok, refused

COMMANDS = [
    ("memory", "build"), ("calibrate",), ("items", "add"), ("recommend",), ("evaluate",), ("compare",)
]  # fmt: skip

openvino = pytest.mark.skipif(
    find_spec("openvino") is None, reason="openvino is not installed: pip install 'l2d[openvino]'"
)


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run with an export in it that auto has not timed yet."""
    folder = Path(shutil.copytree(run, tmp_path_factory.mktemp("exported") / "run"))
    Recommender.load(folder, device="cpu", engine="openvino")
    return folder


@pytest.fixture
def writable(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "run"))


@pytest.fixture
def server(run: Path) -> Iterator[str]:
    with serving(FakeVllm(Recommender.load(run, device="cpu", engine="torch").thinker)) as url:
        yield url


def told(run: Path, engine: str = "auto") -> tuple[Recommender, list[str]]:
    said: list[str] = []
    return Recommender.load(run, device="cpu", engine=engine, notice=said.append), said


def timed_at(ratio: float, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The openvino engine takes that much of torch's time; returns what was timed."""
    calls: list[object] = []

    def seconds(thinker: object, _: object) -> float:
        calls.append(thinker)
        return ratio if isinstance(thinker, OpenVinoThinker) else 1.0

    monkeypatch.setattr(choosing, "_seconds", seconds)
    return calls


def test_auto_without_an_export_is_torch_and_makes_none(run: Path) -> None:
    opened, said = told(run)
    assert isinstance(opened.thinker, TorchThinker)
    assert said == ["engine: torch: this run has no OpenVINO export; --engine openvino makes one"]
    assert not (run / "engines").exists()
    assert told(run, "torch")[1] == ["engine: torch, as asked"]


@pytest.mark.parametrize("name", ["onnx", "", "torch=2", "auto=1", "Vllm"])
def test_an_unknown_engine_is_refused_before_anything_is_opened(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown engine"):
        check_engine(name)
    assert "unknown engine" in refused("recommend", tmp_path, "--history", "x", "--engine", name or "=")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_thinks_lets_the_engine_be_chosen(command: tuple[str, ...]) -> None:
    assert "--engine" in ok(*command, "--help").out


def test_a_package_that_is_missing_is_an_error_when_asked_for(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingDependency, match=r"pip install 'l2d\[openvino\]'"):
        told(run, "openvino")


@openvino
def test_openvino_is_made_in_the_run_and_the_run_stays_whole(writable: Path) -> None:
    (folder,) = (writable / "engines").iterdir()
    assert folder.name.startswith("openvino-")
    opened, said = told(writable, "openvino")
    assert isinstance(opened.thinker, OpenVinoThinker)
    assert said == ["engine: openvino with int8 weights, as asked"]
    assert "of torch's time on this machine" in ok("doctor", writable, "--device", "cpu").out


@openvino
def test_lists_of_both_engines_agree(exported: Path) -> None:
    torch, openvino = told(exported, "torch")[0], told(exported, "openvino")[0]
    histories = [torch.dataset.splits.test.history(place) for place in range(40)]
    assert agreement(openvino.thoughts(histories), torch.thoughts(histories)).within(0.99, 0.05)
    lists = [
        run.decoder("global").rank(run.requests(histories, think=True), 10).rows for run in (torch, openvino)
    ]  # fmt: skip
    shared = np.mean([len(np.intersect1d(one, other)) for one, other in zip(*lists, strict=True)])
    assert shared >= 9


@openvino
def test_auto_takes_the_faster_engine_and_remembers(writable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = timed_at(0.5, monkeypatch)
    opened, said = told(writable)
    assert isinstance(opened.thinker, OpenVinoThinker)
    assert said == ["engine: openvino with int8 weights: a prompt takes OpenVINO 0.50 of torch's time on this machine"]
    assert calls
    calls.clear()
    assert isinstance(told(writable)[0].thinker, OpenVinoThinker)
    assert not calls, "timed once per machine"


@openvino
def test_auto_stays_with_torch_where_openvino_gains_little(writable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = timed_at(0.9, monkeypatch)
    for _ in range(2):
        opened, said = told(writable)
        assert isinstance(opened.thinker, TorchThinker)
        assert said == ["engine: torch: a prompt takes OpenVINO 0.90 of torch's time on this machine"]
    assert len([one for one in calls if isinstance(one, OpenVinoThinker)]) <= 2 + choosing.TRIAL_ROUNDS


@openvino
@pytest.mark.parametrize("error", [OutOfSpace("the disk is full"), PermissionError(13, "denied")])
def test_auto_is_torch_where_its_choice_cannot_be_remembered(
    writable: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else two openings of a run might answer with different engines."""

    def refuse(*_: object) -> None:
        raise error

    timed_at(0.5, monkeypatch)
    (writable / "engines" / SPEEDS).unlink(missing_ok=True)
    monkeypatch.setattr(choosing, "write_json", refuse)
    opened, said = told(writable)
    assert isinstance(opened.thinker, TorchThinker)
    assert len(said) == 2 and said[0].startswith("warning: ")


@openvino
def test_auto_is_torch_where_a_compiled_model_was_asked_for(writable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = timed_at(0.5, monkeypatch)
    opened = Recommender.load(writable, device="cpu", compiled=True)
    assert isinstance(opened.thinker, TorchThinker) and opened.backbone.compiled and not calls


@openvino
@pytest.mark.parametrize("content", ["", "[1]", '{"another machine": 0.1}'])
def test_times_of_elsewhere_do_not_count(writable: Path, content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    timed_at(0.9, monkeypatch)
    (writable / "engines" / SPEEDS).write_text(content)
    assert isinstance(told(writable)[0].thinker, TorchThinker)
    kept = json.loads((writable / "engines" / SPEEDS).read_text())
    assert 0.9 in kept.values()
    assert kept.get("another machine", 0.1) == 0.1


@openvino
def test_auto_warns_and_falls_back_where_the_asked_for_engine_fails(
    writable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder,) = (writable / "engines").iterdir()
    with flipped(folder / "graph.bin"):
        opened, said = told(writable)
        with pytest.raises(InputError, match="does not match its checksum"):
            told(writable, "openvino")
    assert isinstance(opened.thinker, TorchThinker)
    assert said[0].startswith("warning: the openvino engine cannot be used, torch thinks instead: ")
    assert said[1] == "engine: torch: the openvino engine cannot be used"
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert "pip install" in told(writable)[1][0]


@openvino
def test_uncompressed_weights_are_refused(run: Path) -> None:
    with pytest.raises(ConfigError, match="kills the process"):
        told(run, "openvino=bf16")


def test_vllm_is_found_by_option_or_environment(run: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no vLLM server is named"):
        told(run, "vllm")
    opened, said = told(run, f"vllm={server}")
    assert isinstance(opened.thinker, VllmThinker)
    assert said == [f"engine: vllm at {server}, as asked; against torch: cosine 1.0000, lengths within 0.0%"]
    monkeypatch.setenv("L2D_VLLM_URL", server)
    assert isinstance(told(run, "vllm")[0].thinker, VllmThinker)
    assert isinstance(told(run)[0].thinker, TorchThinker), "auto does not ask the network"


def test_vllm_gives_the_lists_of_torch(run: Path, server: str) -> None:
    titles = Recommender.load(run, device="cpu").catalog.titles[:3]
    asked = [word for title in titles for word in ("--history", title)]
    plain = ok("recommend", run, *asked, "--json", "--decoder", "global", "--engine", "torch")
    remote = ok("recommend", run, *asked, "--json", "--decoder", "global", "--engine", f"vllm={server}")
    one, other = (json.loads(done.out)["items"] for done in (plain, remote))
    assert [item["item_id"] for item in one] == [item["item_id"] for item in other]
    assert f"engine: vllm at {server}" in remote.err


def test_a_server_of_another_model_is_refused(run: Path, tmp_path: Path) -> None:
    from l2d.testing import DummyThinker

    width = Recommender.load(run, device="cpu").thinker.width
    with serving(FakeVllm(DummyThinker(width))) as url, pytest.raises(EngineError, match="this run's backbone"):
        told(run, f"vllm={url}")


def test_a_memory_says_who_thought_it_and_goes_on_with_that_engine_alone(copy: Path, server: str) -> None:
    engine = f"vllm={server}"
    with pytest.raises(ArtifactMismatch, match=r"got torch, expected vllm.*--overwrite"):
        told(copy, engine)[0].build_memory()
    told(copy, engine)[0].build_memory(overwrite=True)
    assert "vllm" in ok("memory", "info", copy).out
    with pytest.raises(ArtifactMismatch, match=r"got vllm, expected torch.*--engine vllm"):
        told(copy, "torch")[0].build_memory()
    told(copy, engine)[0].build_memory()

    opened, said = told(copy, "torch")
    assert len(opened.memory)
    assert said[1:] == [
        "the memory was thought by vllm, requests by torch: lists may differ a little, see docs/engines.md"
    ]
    same, said = told(copy, engine)
    assert len(same.memory)
    assert len(said) == 1


def test_agreement_sees_directions_lengths_and_what_is_not_finite() -> None:
    states = np.array([[3.0, 4.0], [1.0, 0.0]], dtype=np.float32)
    assert agreement(states, states).within(0.999999, 1e-6)
    turned = np.array([[4.0, 3.0], [1.0, 0.0]], dtype=np.float32)
    assert agreement(turned, states) == pytest.approx((0.96, 0.0), abs=1e-6)
    assert agreement(2 * states, states) == pytest.approx((1.0, 1.0))
    assert not agreement(2 * states, states).within(0.99, 0.5)
    for bad in (np.nan, np.inf, 0.0):
        assert agreement(np.full((2, 2), bad, dtype=np.float32), states) == Agreement(-1.0, 1.0)
