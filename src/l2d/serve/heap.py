"""Memory that was freed and that the C library keeps: given back to the system now and then."""

from __future__ import annotations

import asyncio
import ctypes

EVERY = 30.0
"""Seconds between two times. Each takes about 20 milliseconds of processor time."""


async def keep_small() -> None:
    """Gives back what is free, again and again, until it is cancelled.

    Every batch has a size of its own, and so have the holes that it leaves: a server of 22 million parameters that
    had batches of one to 23 requests held a quarter more after two minutes, and a little more every minute.
    """
    while True:
        await asyncio.sleep(EVERY)
        await asyncio.to_thread(give_back)


def give_back() -> None:
    """Gives whole pages that are free back to the system; nothing where the C library is not glibc."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
