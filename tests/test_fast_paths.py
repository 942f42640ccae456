"""No speed-up changes a list: every way to a thought on a tuned run against the plain model, by the lists they give."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from l2d import Recommender
from l2d.backbone import Backbone, probe_packing, reader
from l2d.prompts import COMPACT, INSTRUCT, Prompts
from l2d.ranking import Requests, Rows
from l2d.thoughts import TorchThinker

Think = Callable[[list[NDArray[np.int32]]], NDArray[np.float32]]

ROOM = 1 << 24
K = 10


def one_by_one(thinker: TorchThinker) -> Think:
    return lambda prompts: np.concatenate([thinker.think([prompt]) for prompt in prompts])


def plain(backbone: Backbone, prompts: list[NDArray[np.int32]]) -> NDArray[np.float32]:
    """The model's own forward pass over one prompt after the other."""
    with torch.inference_mode():
        tensors = [torch.from_numpy(prompt.astype(np.int64))[None] for prompt in prompts]
        return np.stack([backbone.base(input_ids=ids).last_hidden_state[0, -1].numpy() for ids in tensors])


def ways(path: Path, prompts: Prompts) -> dict[str, tuple[Backbone, Think]]:
    """Each way with a backbone of its own."""

    def opened(compiler: str | None = None, *, settled: bool = True) -> Backbone:
        backbone = Recommender.load(path, device="cpu").backbone
        backbone.take(backbone.model)
        return backbone.settle(compiler) if settled else backbone

    def thinker(backbone: Backbone, **options: object) -> TorchThinker:
        return TorchThinker(backbone, probe_packing(backbone), opening=prompts.opening, **options)  # type: ignore[arg-type]

    loose, single, packed, small, former, compiled = (
        opened(settled=False),
        *(opened() for _ in range(4)),
        opened("eager"),
    )
    return {
        "packs, not settled": (loose, thinker(loose).think),
        "single": (single, one_by_one(thinker(single))),
        "packs": (packed, thinker(packed).think),
        "small packs": (small, thinker(small, pack_tokens=60, batch_tokens=150).think),
        "returning": (former, one_by_one(thinker(former, reuse_bytes=ROOM))),
        "compiled": (compiled, one_by_one(thinker(compiled))),
    }


@pytest.mark.parametrize("template", [COMPACT, INSTRUCT], ids=["compact", "instruct"])
def test_lists_are_the_plain_models(template: object, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "reordering_pays", lambda _: True)
    opened = Recommender.load(run, device="cpu")
    prompts = Prompts.compile(template, opened.backbone.tokenizer, opened.catalog)  # type: ignore[arg-type]
    splits = opened.dataset.splits
    histories: list[Rows] = [splits.test.history(index) for index in range(40)]
    histories += [history[:-1] for history in histories if len(history) > 1] + histories[:5]
    asked = [prompts.prompt(history) for history in histories]
    expected = plain(opened.backbone, asked)
    near = 1e-5 * np.abs(expected).max()
    decoders = [opened.decoder(name) for name in ("global", "local", "vote")]
    lists = {decoder.name: decoder.rank(Requests(histories, expected), K) for decoder in decoders}
    for way, (_, think) in ways(run, prompts).items():
        found = think(asked)
        assert np.abs(found - expected).max() <= near, way
        for decoder in decoders:
            theirs, ours = lists[decoder.name], decoder.rank(Requests(histories, found), K)
            np.testing.assert_allclose(ours.scores, theirs.scores, rtol=1e-3, err_msg=f"{way}, {decoder.name}")
            same = ours.rows == theirs.rows
            tied = np.isclose(theirs.scores, np.roll(theirs.scores, 1, axis=1), rtol=2e-3)
            tied |= np.isclose(theirs.scores, np.roll(theirs.scores, -1, axis=1), rtol=2e-3)
            assert (same | tied).all(), f"{way}, {decoder.name}: rows differ where scores do"
            assert same.mean() > 0.97, f"{way}, {decoder.name}"
