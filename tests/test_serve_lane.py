"""The thread that answers goes on, whatever fails in it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from l2d.errors import ArtifactBusy
from l2d.serve.lane import Lane
from l2d.serve.metrics import Metrics
from l2d.serve.settings import Settings


class Failing:
    """A run whose version cannot be told while it is broken."""

    broken = False
    entries = (1, 2)
    live = SimpleNamespace(pending=0)

    @property
    def version(self) -> str:
        if self.broken:
            raise ArtifactBusy("it is being read")
        return "1.0"


def test_a_state_that_cannot_be_read_after_a_write_ends_that_call_alone() -> None:
    run: Any = Failing()

    async def asked() -> str:
        lane = Lane("shop", run, Settings(), Metrics())
        lane.start(asyncio.get_running_loop())
        run.broken = True
        with pytest.raises(ArtifactBusy):
            await asyncio.wait_for(lane.call("write", lambda _: "done", changes=True), 20)
        run.broken = False
        found = await asyncio.wait_for(lane.call("write", lambda _: "done", changes=True), 20)
        await lane.close()
        return found

    assert asyncio.run(asked()) == "done"
