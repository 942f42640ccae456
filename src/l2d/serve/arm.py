"""A run that answers and changes: short writes between batches, long ones beside them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from l2d.artifacts import WriterLock
from l2d.errors import DataError, InputError
from l2d.serve.answering import answering_decoders
from l2d.serve.errors import Refused, busy
from l2d.serve.lane import Lane, Result
from l2d.serve.metrics import Metrics
from l2d.serve.settings import Settings

if TYPE_CHECKING:
    from l2d.recommender import Recommender

LAST_WRITES = 20
"""Writes that a run's description lists."""

WRITING = 0.1
"""Share of the usual deadline that short writes may take between two batches."""


class Arm(Lane):
    """A run of a server.

    Args:
        name, run, settings, metrics: as in `Lane`.
        reopen: opens the run anew for reading, as it then is on the disk; None where it cannot be.
    """

    def __init__(
        self,
        name: str,
        run: Recommender,
        settings: Settings,
        metrics: Metrics,
        reopen: Callable[[], Recommender] | None = None,
    ) -> None:
        super().__init__(name, run, settings, metrics)
        self.reopen = reopen
        self.decoders = answering_decoders(run, language=settings.language)
        self.writes: deque[tuple[str, int, float, str]] = deque(maxlen=LAST_WRITES)
        self._writing = asyncio.Lock()
        self._short: deque[tuple[str, Callable[[Recommender], Any], asyncio.Future[Any]]] = deque()
        self._writers = 0
        self._moving: asyncio.Task[None] | None = None
        self._told: tuple[object, asyncio.Task[dict[str, Any]]] | None = None

    def prompt_tokens(self, history: Sequence[str | int]) -> int:
        """Length of the prompt of a history.

        Raises:
            Refused: one of its items is not in the catalogue.
        """
        rows = np.array(self.rows(history), dtype=np.int32)
        if not len(rows):
            return 1
        prompts, rows = self.run.prompts, self.run.trimmed(rows)
        frame = len(prompts.opening) + len(prompts.suffix) + len(prompts.separator) * (len(rows) - 1)
        offsets = prompts.title_offsets
        rows = rows[rows < len(offsets) - 1]  # an item that is being added in this moment is a little later there
        return min(frame + int((offsets[rows + 1] - offsets[rows]).sum()), prompts.max_tokens)

    def rows(self, items: Sequence[str | int]) -> list[int]:
        """Rows of ids or titles.

        Raises:
            Refused: one of them is neither. To suggest what was meant takes longer than to answer: a search does it.
        """
        look_up = self.run.catalog.look_up
        found = []
        for item in items:
            row = look_up(item)
            if row is None:
                raise Refused(422, "unknown item", got=repr(item), cure="search for it: GET /v1/items?query=")
            found.append(row)
        return found

    def history_of(self, user: str | int) -> list[str | int]:
        """All items of a user; none of one who was never seen."""
        try:
            return self.run.user_history(user)
        except DataError:
            return []

    async def described(self, deadline: float) -> dict[str, Any]:
        """The run's memory in figures, looked up once for all who ask while it stays the same.

        Args:
            deadline: monotonic time by which it must be known.

        Raises:
            Refused: it would be late.
        """
        state = self.version, len(self.run.catalog)
        told = self._told
        if told is None or told[0] != state or (told[1].done() and told[1].exception() is not None):
            told = self._told = state, asyncio.get_running_loop().create_task(self._describe(deadline))
        return await asyncio.shield(told[1])

    async def _describe(self, deadline: float) -> dict[str, Any]:
        def look(run: Recommender) -> dict[str, Any]:
            return {
                "memory_version": run.version,
                "entries": len(run.entries),
                "items": int(np.count_nonzero(run.item_vectors.counts)),
                "users": len(run.entries.user_ids),
                "catalog": len(run.catalog),
                "versions": len(run.versions()),
                "width": run.entries.width,
                "decoder": run.usual,
            }

        found = await self.call("describe", look, deadline=deadline)
        return {**found, "bytes": await asyncio.to_thread(_size, self.run)}

    async def write(self, kind: str, work: Callable[[Recommender], Result]) -> Result:
        """Has a short write done in the thread that answers; the next request already sees it.

        Args:
            kind: of work.
            work: gets the run.

        Raises:
            Refused: too many writes wait.
        """
        turn: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        mine = kind, work, turn
        self._short.append(mine)
        try:
            async with self._turn_to_write():
                if not turn.done():
                    await self._write_waiting(kind)
        except BaseException:
            with contextlib.suppress(ValueError):
                self._short.remove(mine)
            raise
        return await turn

    async def _write_waiting(self, kind: str) -> None:
        """Has the oldest short writes done, those of its own kind behind it too: as many as fit between two batches.

        One at a time would let no more writes through than batches, which are long when much is asked.
        """
        waiting = list(itertools.takewhile(lambda write: write[0] == kind, self._short))
        seconds = WRITING * self.settings.deadline_ms / 1000

        def some(run: Recommender) -> list[tuple[Any, Exception | None]]:
            found: list[tuple[Any, Exception | None]] = []
            began = time.monotonic()
            for _, work, _ in waiting:
                try:
                    found.append((work(run), None))
                except Exception as error:  # noqa: BLE001  # its own client gets it
                    found.append((None, error))
                if time.monotonic() - began > seconds:
                    break
            return found

        for found, error in await self.call(kind, some, changes=True):
            _, _, turn = self._short.popleft()
            if error is None:
                turn.set_result(found)
            else:
                turn.set_exception(error)

    async def change(self, kind: str, work: Callable[[Recommender], Result]) -> Result:
        """Has a long write done beside the thread that answers, on the run's successor, and goes over to that one.

        Meanwhile answers come from the run as it was, and other writes wait.

        Args:
            kind: of work.
            work: gets the successor.

        Raises:
            Refused: too many writes wait.
        """
        async with self._turn_to_write():
            other = await self.call(kind, lambda run: run.successor())

            def changed() -> Result:
                try:
                    return work(other)
                finally:
                    self.warm(other)

            try:
                return await asyncio.to_thread(changed)
            finally:
                await self.swap(other)

    async def move(self) -> None:
        """Moves what waits in the journal into Lance, beside the thread that answers; what is counted follows there."""
        async with self._turn_to_write():
            await asyncio.to_thread(self.run.writing().move)
            await self.call("move", lambda run: run.move(), changes=True)

    def move_soon(self) -> None:
        """Begins to `move`, unless that is being done; where the disk does not take it, the next write tries again."""

        async def move() -> None:
            with contextlib.suppress(InputError, Refused):
                await self.move()

        if self._moving is None or self._moving.done():
            self._moving = asyncio.get_running_loop().create_task(move())

    async def follow(self) -> None:
        """Goes over to what another process wrote: in place where entries came in, else by a successor."""
        async with self._turn_to_write():
            if not await asyncio.to_thread(getattr, self.run, "stale"):
                return
            news = await asyncio.to_thread(self.run.news)
            if news is not None:
                await self.call("refresh", lambda run: run.take_news(news), changes=True)
                return
        await self.change("refresh", lambda run: run.refresh())

    async def reload(self) -> None:
        """Opens the run anew, as it then lies on the disk, and goes over to it; the former one answers until then."""
        if self.reopen is None:
            return
        async with self._turn_to_write():
            opened = await asyncio.to_thread(self.reopen)
            try:
                await asyncio.to_thread(self.warm, opened)
                go_over = self.swap if self.settings.read_only else self._hand_over
                former = await go_over(opened)
            except BaseException:
                opened.close()
                raise
            await asyncio.to_thread(former.close)

    async def _hand_over(self, opened: Recommender) -> Recommender:
        """Goes over to a run that was opened for reading and gets the right to write; returns the former one.

        In the same folder the right is handed on and never free; that to another folder, which was put in the place
        of the former one, is a new one. Where this fails, the former run goes on with what it had.
        """

        def give(run: Recommender) -> WriterLock | None:
            _ = run.entries, run.histories  # what it still answers from
            return run.end_writing() if run.in_place else None

        def take() -> None:
            opened.begin_writing(lock or WriterLock(opened.run.writer))
            self.warm(opened)

        lock = await self.call("close", give)
        try:
            await asyncio.to_thread(take)
            return await self.swap(opened)
        except BaseException:
            if lock is not None:
                opened.end_writing()
                try:
                    await self.call("open", lambda run: run.resume_writing(lock))
                except Refused:  # the server is about to end
                    lock.release()
            raise

    @contextlib.asynccontextmanager
    async def _turn_to_write(self) -> AsyncIterator[None]:
        if self._writers >= self.settings.writes:
            raise busy("too many writes are waiting", reason="full", retry_after=1)
        self._writers += 1
        try:
            async with self._writing:
                yield
        finally:
            self._writers -= 1

    async def swap(self, run: Recommender) -> Recommender:
        """Goes over to another open run between two batches; returns the former one."""

        def exchange(former: Recommender) -> Recommender:
            self.run, self._told = run, None
            self.decoders = answering_decoders(run, language=self.settings.language)
            return former

        return await self.call("swap", exchange, changes=True)

    def warm(self, run: Recommender) -> None:
        """Makes all that the first request would else wait for."""
        from l2d.recommender import RecommendRequest

        item = f"id:{run.catalog.item_ids[0]}"
        decoder = self.settings.decoder or run.usual
        run.recommend_batch([RecommendRequest([item]), RecommendRequest([])], decoder=decoder)
        _ = run.histories, run.item_vectors

    async def close(self) -> None:
        """Answers what waits, then ends the thread and lets go of the run."""
        await super().close()
        if self._moving is not None:
            await asyncio.wait([self._moving])
        self.run.close()


def _size(run: Recommender) -> int:
    """Bytes of a run's memory and journal on the disk."""
    live = run.run.live
    files = [*run.run.memory.rglob("*"), *live.parent.glob(f"{live.name}*")]
    found = 0
    for file in files:
        with contextlib.suppress(FileNotFoundError):  # a compaction may be removing it
            found += file.stat().st_size if file.is_file() else 0
    return found
