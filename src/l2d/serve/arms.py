"""Several runs side by side: who gets which, and how one is exchanged."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from l2d.serve.arm import Arm
from l2d.serve.errors import Refused


def arm_names(paths: Sequence[Path]) -> list[str]:
    """Names of folders; where two are equal, a number makes them differ."""
    names: list[str] = []
    for path in paths:
        name, count = path.resolve().name or "run", 1
        while (name if count == 1 else f"{name}-{count}") in names:
            count += 1
        names.append(name if count == 1 else f"{name}-{count}")
    return names


class Arms:
    """The runs of a server, in the order in which they were named.

    Args:
        arms: at least one.
    """

    def __init__(self, arms: Sequence[Arm]) -> None:
        self._arms = {arm.name: arm for arm in arms}
        self.first = arms[0]

    def __iter__(self) -> Iterator[Arm]:
        return iter(self._arms.values())

    def __len__(self) -> int:
        return len(self._arms)

    def named(self, name: str | None) -> Arm:
        """The arm of a name; the first one where there is none.

        Raises:
            Refused: no such arm.
        """
        if name is None:
            return self.first
        if name not in self._arms:
            raise Refused(404, "no such run", got=name, expected=", ".join(self._arms))
        return self._arms[name]

    def of(self, user: str | int | None, name: str | None = None) -> Arm:
        """The arm that answers a user: always the same while the runs are the same; without a user the first.

        Args:
            user: the user.
            name: the arm that was asked for, if one was.

        Raises:
            Refused: no such arm.
        """
        if name is not None or user is None or len(self) == 1:
            return self.named(name)
        digest = hashlib.sha256(str(user).encode("utf-8", "surrogatepass")).digest()
        return list(self)[int.from_bytes(digest[:8], "big") % len(self)]

    def start(self) -> None:
        """Lets all arms answer, in the running event loop."""
        for arm in self:
            arm.start(asyncio.get_running_loop())

    async def close(self) -> None:
        """Answers what waits in all arms, and ends them."""
        await asyncio.gather(*(arm.close() for arm in self))
