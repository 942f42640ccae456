"""The wire format of a vLLM pooling server, spoken by a thread of the test and thought by any engine.

What is here of the real one: `GET /v1/models`, and `POST /pooling` with token ids, which refuses a model that it does
not serve, a task that it cannot do, and prompts that are too long, and answers in base64 or in numbers.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2d.thoughts import Thinker

Answer = dict[str, Any]


class FakeVllm:
    """What a server does and what it was asked.

    Args:
        thinker: what computes its states.
        spoil: changes an answer of /pooling before it is sent.
        busy: status codes of the first answers to /pooling, before it works.
        longest: tokens of a prompt that it takes.
    """

    name = "served-model"

    def __init__(
        self,
        thinker: Thinker,
        spoil: Callable[[Answer], Any] = lambda answer: answer,
        busy: tuple[int, ...] = (),
        longest: int = 256,
    ) -> None:
        self.thinker = thinker
        self.spoil = spoil
        self.busy = list(busy)
        self.longest = longest
        self.asked: list[dict[str, Any]] = []
        self.most_at_once = self._at_once = 0
        self._lock = threading.Lock()

    def models(self) -> Answer:
        return {"object": "list", "data": [{"id": self.name, "object": "model", "max_model_len": self.longest}]}

    def pooling(self, body: dict[str, Any]) -> tuple[int, Any]:
        with self._lock:
            self.asked.append(body)
            if self.busy:
                return self.busy.pop(0), {"error": {"message": "the engine is starting"}}
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            return self._pooled(body)
        finally:
            with self._lock:
                self._at_once -= 1

    def _pooled(self, body: dict[str, Any]) -> tuple[int, Any]:
        if body["model"] != self.name:
            return 404, {"error": {"message": f"The model {body['model']} does not exist."}}
        if body["task"] != "embed":
            return 400, {"error": {"message": f"Unsupported task: {body['task']}"}}
        if max(len(ids) for ids in body["input"]) > self.longest:
            return 400, {"error": {"message": "This model's maximum context length is exceeded"}}
        states = self.thinker.think([np.array(ids, dtype=np.int32) for ids in body["input"]])
        if body.get("use_activation", True):  # an embedding model's activation is the unit length
            states = states / np.linalg.norm(states, axis=1, keepdims=True)
        as_text = body["encoding_format"] == "base64"
        data = [
            {"index": index, "object": "pooling", "data": _base64(state) if as_text else state.tolist()}
            for index, state in enumerate(states)
        ]
        tokens = sum(len(ids) for ids in body["input"])
        usage = {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0}
        return 200, self.spoil({"id": "pool-1", "object": "list", "model": self.name, "data": data, "usage": usage})


def _base64(state: NDArray[np.float32]) -> str:
    return base64.b64encode(state.astype("<f4").tobytes()).decode()


@contextmanager
def serving(fake: FakeVllm) -> Iterator[str]:
    """The address of a server, which ends with the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send(*((200, fake.models()) if self.path == "/v1/models" else (404, {"detail": "Not Found"})))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.send(*(fake.pooling(body) if self.path == "/pooling" else (404, {"detail": "Not Found"})))

        def send(self, status: int, content: Any) -> None:
            raw = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
