"""Many requests at once with httpx (`pip install httpx`): the server thinks them together.

python examples/client/with_httpx.py http://127.0.0.1:8000 histories.jsonl > lists.jsonl

A line of the input is a history: a JSON list of ids or titles, oldest first. L2D_KEY is sent where it is set.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import httpx

AT_ONCE = 64
"""Requests under way: about a batch of the server."""


async def main(url: str, histories: Path) -> None:
    """Prints an answer per line, in the order of the input."""
    key = os.environ.get("L2D_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    turn = asyncio.Semaphore(AT_ONCE)
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:

        async def answer(history: list[str | int]) -> object:
            async with turn:
                while True:
                    got = await client.post("/v1/recommend", json={"history": history, "deadline_ms": 10_000})
                    if got.status_code not in (429, 503):
                        return got.raise_for_status().json()["items"]
                    await asyncio.sleep(float(got.headers.get("Retry-After", 1)))

        lines = histories.read_text(encoding="utf-8").splitlines()
        for answered in await asyncio.gather(*(answer(json.loads(line)) for line in lines)):
            print(json.dumps(answered, ensure_ascii=False))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
