"""The vLLM engine, against a server that speaks its wire format and thinks with a tiny backbone."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fake_vllm import Answer, FakeVllm, serving
from families import open_family
from l2d.errors import EngineError
from l2d.testing import DummyThinker
from l2d.thoughts import TorchThinker, VllmThinker, vllm_engine
from l2d.thoughts.vllm_engine import Patience
from test_thoughts import some_prompts

QUICK = Patience(timeout=20, attempts=3, pause=0.001, batch=4, parallel=2)
WIDTH = 32


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> TorchThinker:
    return TorchThinker(open_family("qwen3", tmp_path_factory.mktemp("qwen3")))


@pytest.fixture
def fake(plain: TorchThinker) -> FakeVllm:
    return FakeVllm(plain)


@pytest.fixture
def url(fake: FakeVllm) -> Iterator[str]:
    with serving(fake) as address:
        yield address


def unused_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_thoughts_are_the_plain_models_in_the_order_of_the_prompts(
    plain: TorchThinker, fake: FakeVllm, url: str
) -> None:
    prompts = some_prompts(plain.backbone.tokenizer.size)
    thinker = VllmThinker(url + "/", WIDTH, QUICK)
    found, expected = thinker.think(prompts), plain.think(prompts)
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    assert np.abs(thinker.think(prompts[:1]) - expected[:1]).max() <= 1e-5 * np.abs(expected).max()
    assert thinker.think([]).shape == (0, WIDTH)
    assert thinker.model == fake.name


def test_a_request_says_all_that_a_thought_depends_on(fake: FakeVllm, url: str) -> None:
    VllmThinker(url, WIDTH, QUICK).think([np.array([3, 1, 2], dtype=np.int32)])
    (asked,) = fake.asked
    assert asked == {
        "model": "served-model", "input": [[3, 1, 2]], "task": "embed", "use_activation": False,
        "add_special_tokens": False, "encoding_format": "base64", "embed_dtype": "float32", "endianness": "little",
    }  # fmt: skip


def test_prompts_go_in_batches_a_few_at_a_time_and_neighbours_share_their_beginning(fake: FakeVllm, url: str) -> None:
    generator = np.random.default_rng(0)
    prompts = [generator.integers(0, 50, size=size).astype(np.int32) for size in generator.integers(1, 9, size=30)]
    calls: list[tuple[int, int]] = []
    VllmThinker(url, WIDTH, QUICK).think(prompts, lambda done, total: calls.append((done, total)))
    sizes = sorted(len(body["input"]) for body in fake.asked)
    assert sizes == [2, *[4] * 7]
    assert fake.most_at_once <= QUICK.parallel
    batches = sorted(body["input"] for body in fake.asked)
    assert [ids for batch in batches for ids in batch] == sorted(prompt.tolist() for prompt in prompts)
    done = [done for done, _ in calls]
    assert len(done) == 8 and done[-1] == 30, "the short batch may come back before others"
    assert set(np.diff([0, *done]).tolist()) == {4, 2}
    assert {total for _, total in calls} == {30}


def test_a_busy_server_is_asked_again(fake: FakeVllm, url: str) -> None:
    thinker = VllmThinker(url, WIDTH, QUICK)
    fake.busy = [503, 429]
    assert np.isfinite(thinker.think([np.array([1], dtype=np.int32)])).all()
    assert len(fake.asked) == 3
    fake.busy = [503] * 9
    with pytest.raises(EngineError, match=r"503.*the engine is starting"):
        thinker.think([np.array([1], dtype=np.int32)])
    assert len(fake.asked) == 3 + QUICK.attempts


def test_a_refusal_is_not_repeated_and_quotes_the_server(fake: FakeVllm, url: str) -> None:
    with pytest.raises(EngineError, match=r"400.*maximum context length"):
        VllmThinker(url, WIDTH, QUICK).think([np.ones(300, dtype=np.int32)])
    assert len(fake.asked) == 1


def test_a_server_that_is_away_or_is_no_server_is_named(fake: FakeVllm) -> None:
    away = f"http://127.0.0.1:{unused_port()}"
    with pytest.raises(EngineError, match=f"no vLLM server answers at {away}.*docs/engines.md"):
        VllmThinker(away, WIDTH, QUICK)
    with pytest.raises(EngineError, match="not the address of a server"):
        VllmThinker("localhost:8000", WIDTH, QUICK)
    fake.models = lambda: {"object": "list", "data": []}  # type: ignore[method-assign]
    with serving(fake) as url, pytest.raises(EngineError, match="expected a list of models"):
        VllmThinker(url, WIDTH, QUICK)


@pytest.mark.parametrize(
    "address", ["http://[::1", "http://:8000", "http://host:port", "ftp://host", "host:80", "http://"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(EngineError, match="not the address of a server"):
        VllmThinker(address, WIDTH, QUICK)


@pytest.mark.parametrize("address", ["http://..:80", f"http://{'a' * 70}.example"])
def test_a_name_that_cannot_be_looked_up_is_a_server_that_is_away(address: str) -> None:
    with pytest.raises(EngineError, match="no vLLM server answers"):
        VllmThinker(address, WIDTH, QUICK)


def test_a_refusal_does_not_wait_for_the_requests_under_way(plain: TorchThinker) -> None:
    held, first = threading.Event(), threading.Event()

    class Slow(FakeVllm):
        def pooling(self, body: dict[str, Any]) -> tuple[int, Any]:
            if not first.is_set():
                first.set()
                held.wait(20)
                return super().pooling(body)
            return 400, {"error": {"message": "no"}}

    prompts = some_prompts(plain.backbone.tokenizer.size)
    with serving(Slow(plain)) as address:
        thinker = VllmThinker(address, WIDTH, QUICK)
        with pytest.raises(EngineError, match="refused"):
            thinker.think(prompts)
        assert not held.is_set() and first.is_set(), "the first request is still being answered"
        held.set()


def test_a_server_that_ends_between_two_requests_is_named(fake: FakeVllm) -> None:
    with serving(fake) as url:
        thinker = VllmThinker(url, WIDTH, QUICK)
    with pytest.raises(EngineError, match="no vLLM server answers"):
        thinker.think([np.array([1], dtype=np.int32)])


def fewer(answer: Answer) -> Answer:
    return {**answer, "data": answer["data"][1:]}


def twice(answer: Answer) -> Answer:
    return {**answer, "data": [answer["data"][0]] * len(answer["data"])}


def not_finite(answer: Answer) -> Answer:
    answer["data"][1]["data"] = base64.b64encode(np.full(WIDTH, np.nan, dtype="<f4").tobytes()).decode()
    return answer


def every_token(answer: Answer) -> Answer:
    for item in answer["data"]:
        item["data"] = [[0.0] * WIDTH] * 3
    return answer


def cut_short(answer: Answer) -> Answer:
    answer["data"][0]["data"] = answer["data"][0]["data"][:-5]
    return answer


def renamed(answer: Answer) -> Answer:
    return {**answer, "data": [{"index": item["index"], "embedding": item["data"]} for item in answer["data"]]}


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (fewer, "answered for other prompts"),
        (twice, "answered for other prompts"),
        (not_finite, "values that are not finite"),
        (every_token, "does not pool the last token"),
        (cut_short, "answered strangely"),
        (renamed, "answered strangely"),
        (lambda answer: answer["data"], "answered strangely"),
        (lambda answer: b"<html>gateway</html>", "answered strangely.*JSON"),
    ],
)
def test_an_answer_that_is_no_finite_thought_per_prompt_is_refused(
    fake: FakeVllm, url: str, spoil: Any, says: str
) -> None:
    fake.spoil = spoil
    with pytest.raises(EngineError, match=says):
        VllmThinker(url, WIDTH, QUICK).think([np.array([1, 2], dtype=np.int32), np.array([2], dtype=np.int32)])


def test_answers_may_come_in_any_order_and_as_numbers(plain: TorchThinker, fake: FakeVllm, url: str) -> None:
    prompts = some_prompts(plain.backbone.tokenizer.size)[:4]

    def turned(answer: Answer) -> Answer:
        numbers = [np.frombuffer(base64.b64decode(item["data"]), dtype="<f4").tolist() for item in answer["data"]]
        items = [{**item, "data": values} for item, values in zip(answer["data"], numbers, strict=True)]
        return {**answer, "data": items[::-1]}

    fake.spoil = turned
    expected = plain.think(prompts)
    assert np.abs(VllmThinker(url, WIDTH, QUICK).think(prompts) - expected).max() <= 1e-5 * np.abs(expected).max()


def test_another_model_is_refused(plain: TorchThinker, fake: FakeVllm, url: str, tmp_path: Path) -> None:
    prompts = some_prompts(plain.backbone.tokenizer.size)[:2]
    expected = plain.think(prompts)
    assert VllmThinker(url, WIDTH, QUICK).require_same(prompts, expected).within(0.99999, 1e-5)
    fake.thinker = TorchThinker(open_family("qwen3", tmp_path, seed=1))
    with pytest.raises(EngineError, match="does not think what this run's backbone thinks"):
        VllmThinker(url, WIDTH, QUICK).require_same(prompts, expected)
    fake.thinker = DummyThinker(48)
    with pytest.raises(EngineError, match=r"another width.*\(48,\).*\(32,\)"):
        VllmThinker(url, WIDTH, QUICK).require_same(prompts, expected)


def test_a_server_that_scales_thoughts_to_unit_length_is_refused(
    plain: TorchThinker, fake: FakeVllm, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = some_prompts(plain.backbone.tokenizer.size)[:2]
    monkeypatch.setattr(vllm_engine, "POOLING", {**vllm_engine.POOLING, "use_activation": True})
    with pytest.raises(EngineError, match="use_activation false"):
        VllmThinker(url, WIDTH, QUICK).require_same(prompts, plain.think(prompts))
