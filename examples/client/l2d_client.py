"""A client of a server, with nothing but Python: lists, writes, and what to do when the server is busy.

from l2d_client import Client

client = Client("http://127.0.0.1:8000", key="l2d_...")
client.recommend(["Abbey Road", "Let It Be"], k=5, deadline_ms=300)
client.add([{"user_id": "17", "item_id": "B000002UAL", "timestamp": 1766966400}])

python examples/client/l2d_client.py http://127.0.0.1:8000 "Abbey Road" "Let It Be"
"""

from __future__ import annotations

import http.client
import json
import os
import random
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit


class Failed(Exception):
    """An answer that is none.

    Args:
        status: of HTTP.
        error: what is wrong, and what to do about it.
        request_id: under which the server's log has it.
    """

    def __init__(self, status: int, error: Mapping[str, str], request_id: str) -> None:
        super().__init__(f"{status}: " + "; ".join(error.values()) + f" (request {request_id})")
        self.status, self.error, self.request_id = status, error, request_id


class Client:
    """One kept connection; not for several threads at once.

    Args:
        url: of the server.
        key: of the server's operator; none where it asks for none.
        patience: seconds that an answer may take.
        tries: how often a write or a refused request is sent at most.
    """

    def __init__(self, url: str, *, key: str | None = None, patience: float = 30.0, tries: int = 4) -> None:
        self.place = urlsplit(url)
        self.headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self.patience, self.tries = patience, tries
        self.connection: http.client.HTTPConnection | None = None

    def recommend(self, history: Sequence[str | int] | None = None, **options: Any) -> list[dict[str, Any]]:
        """A list for a history of ids or titles, oldest first, or for `user=...`; options as the server names them."""
        body = options | ({} if history is None else {"history": list(history)})
        items: list[dict[str, Any]] = self.call("POST", "/v1/recommend", body)["items"]
        return items

    def recommend_batch(self, requests: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """An answer for each of up to 256 requests."""
        answered = self.call("POST", "/v1/recommend:batch", {"requests": list(requests)})
        answers: list[dict[str, Any]] = answered["responses"]
        return answers

    def add(self, interactions: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """Writes up to 1,000 interactions; give each its time, and sending them again does no harm."""
        return self.call("POST", "/v1/interactions", {"interactions": list(interactions)})

    def forget(self, user: str | int) -> dict[str, Any]:
        """Deletes a user."""
        return self.call("DELETE", f"/v1/users/{quote(str(user), safe='')}")

    def call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """One request; again after a while where the server is busy or the connection broke.

        All requests may be repeated: those that read change nothing, and those that write know what they wrote.

        Raises:
            Failed: the server refuses it, or was busy each time.
            OSError: it cannot be reached.
        """
        for left in reversed(range(self.tries)):
            try:
                status, after, answer = self._once(method, path, body)
            except (OSError, http.client.HTTPException):
                self.close()
                if not left:
                    raise
                after = 0.2
            else:
                if status < 300:
                    return answer
                if status not in (429, 503) or not left:
                    raise Failed(status, answer.get("error", {}), answer.get("request_id", ""))
            time.sleep(after * random.uniform(0.5, 1.5))  # not all clients at once
        raise AssertionError

    def close(self) -> None:
        """Hangs up."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def _once(self, method: str, path: str, body: Any) -> tuple[int, float, dict[str, Any]]:
        if self.connection is None:
            kind = http.client.HTTPSConnection if self.place.scheme == "https" else http.client.HTTPConnection
            self.connection = kind(self.place.netloc, timeout=self.patience)
        payload = None if body is None else json.dumps(body)
        self.connection.request(method, self.place.path.rstrip("/") + path, body=payload, headers=self.headers)
        response = self.connection.getresponse()
        text = response.read()
        answer = json.loads(text) if response.getheader("Content-Type", "").startswith("application/json") else {}
        return response.status, float(response.getheader("Retry-After") or 1), answer


if __name__ == "__main__":
    address, *titles = sys.argv[1:] or ["http://127.0.0.1:8000"]
    for item in Client(address, key=os.environ.get("L2D_KEY")).recommend(titles, k=10):
        print(f"{item['score']:.4f}  {item['item_id']}  {item['title']}")
