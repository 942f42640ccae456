"""The vLLM engine: a pooling server in a process, an environment and usually a machine of its own, over HTTP.

The server has to pool the last token without an activation: what it answers is then the last state after the final
norm, a thought. docs/engines.md says how it is started.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from threading import Event
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from l2d.errors import EngineError
from l2d.packing import lexicographic
from l2d.thoughts.agreement import Agreement, agreement

TOLERANCE = Agreement(cosine=0.999, stretch=0.03)
"""Between thoughts of the server and of the plain model: kernels and bfloat16 round differently."""

BUSY = (429, 502, 503, 504)
"""Answers that may be another one in a moment."""

POOLING: Mapping[str, Any] = {
    "task": "embed",
    "use_activation": False,
    "add_special_tokens": False,
    "encoding_format": "base64",
    "embed_dtype": "float32",
    "endianness": "little",
}
"""What every request asks for beside the model and its token ids."""


@dataclass(frozen=True)
class Patience:
    """How a client treats a server.

    Args:
        timeout: seconds for one answer.
        attempts: how often a request is sent before its failure counts.
        pause: seconds before the second attempt; doubled before each further one.
        batch: prompts of a request.
        parallel: requests under way at once.
    """

    timeout: float = 120.0
    attempts: int = 4
    pause: float = 0.25
    batch: int = 64
    parallel: int = 4


class VllmThinker:
    """Thinks on a vLLM server.

    Args:
        url: where the server listens, such as `http://localhost:8000`.
        width: length of a thought of the backbone that it should serve.
        patience: how the server is treated.

    Raises:
        EngineError: no server there, or none that serves a model.
    """

    def __init__(self, url: str, width: int, patience: Patience | None = None) -> None:
        if not _is_address(url):
            raise EngineError("not the address of a server", got=url, expected="http://HOST:PORT")
        self.url = url.rstrip("/")
        self.width = width
        self.patience = patience or Patience()
        listed = self._ask("/v1/models")
        try:
            self.model = str(listed["data"][0]["id"])
        except (KeyError, IndexError, TypeError) as error:
            raise self._strange("a list of models", listed) from error

    def think(
        self, prompts: Sequence[NDArray[np.int32]], progress: Callable[[int, int], None] | None = None
    ) -> NDArray[np.float32]:
        """Thoughts of prompts, in their order. Shape: (prompts, width).

        Raises:
            EngineError: the server is away, refuses, or answers something else than a finite thought per prompt.
        """
        thoughts = np.empty((len(prompts), self.width), dtype=np.float32)
        # Prompts with a common beginning follow each other: the server's prefix cache still has it.
        order, size = lexicographic(prompts), self.patience.batch
        parts = [order[start : start + size] for start in range(0, len(order), size)]
        done, stopped = 0, Event()
        pool = ThreadPoolExecutor(self.patience.parallel)
        try:
            asked = {pool.submit(self._pool, [prompts[i] for i in part], stopped): part for part in parts}
            for answered in as_completed(asked):
                thoughts[asked[answered]] = answered.result()
                done += len(asked[answered])
                if progress is not None:
                    progress(done, len(prompts))
        finally:
            stopped.set()  # nobody waits for what is under way
            pool.shutdown(wait=False, cancel_futures=True)
        return thoughts

    def require_same(self, prompts: Sequence[NDArray[np.int32]], expected: NDArray[np.float32]) -> Agreement:
        """Compares the server's thoughts with the plain model's.

        Args:
            prompts: a few.
            expected: what the plain model thinks of them. Shape: (prompts, width).

        Returns:
            How near they are.

        Raises:
            EngineError: another model, another prompt, or a server that pools or scales in another way.
        """
        found = agreement(self.think(prompts), expected)
        if not found.within(*TOLERANCE):
            raise EngineError(
                f"{self.url} does not think what this run's backbone thinks", got=found, expected=TOLERANCE,
                cure="serve the backbone of this run, last token, use_activation false: see docs/engines.md",
            )  # fmt: skip
        return found

    def _pool(self, prompts: Sequence[NDArray[np.int32]], stopped: Event) -> NDArray[np.float32]:
        body = {"model": self.model, "input": [prompt.tolist() for prompt in prompts], **POOLING}
        answer = self._ask("/pooling", body, stopped)
        try:
            items = sorted(answer["data"], key=lambda item: item["index"])
            places = [item["index"] for item in items]
            rows = [_vector(item["data"]) for item in items]
        except (KeyError, TypeError, ValueError) as error:
            raise self._strange("vectors with their indices", answer) from error
        if places != list(range(len(prompts))):
            raise EngineError(
                f"{self.url} answered for other prompts", got=f"{len(places)} vectors", expected=f"{len(prompts)}"
            )
        if wrong := [row.shape for row in rows if row.shape != (self.width,)]:
            raise EngineError(
                f"{self.url} serves a model of another width, or does not pool the last token",
                got=f"a vector of shape {wrong[0]}", expected=f"({self.width},)",
                cure="serve the backbone of this run: see docs/engines.md",
            )  # fmt: skip
        thoughts = np.stack(rows)
        if not np.isfinite(thoughts).all():
            raise EngineError(
                f"{self.url} answered with values that are not finite", cure="serve it with --dtype float32"
            )
        return thoughts

    def _ask(self, path: str, body: Mapping[str, Any] | None = None, stopped: Event | None = None) -> Any:
        """The server's JSON answer; a busy or absent server is asked again, unless the asking was stopped."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        pause = self.patience.pause
        last = self.patience.attempts
        for attempt in range(1, last + 1):
            given_up = attempt == last or (stopped is not None and stopped.is_set())
            try:
                with urllib.request.urlopen(request, timeout=self.patience.timeout) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                with error:
                    said = error.read(500).decode(errors="replace")
                if error.code not in BUSY or given_up:
                    raise EngineError(
                        f"{self.url} refused a request", got=f"{error.code}: {said}",
                        cure="see the server's log, and docs/engines.md for how it is started",
                    ) from error  # fmt: skip
            except (urllib.error.URLError, http.client.HTTPException, OSError, UnicodeError) as error:
                if given_up:
                    raise EngineError(
                        f"no vLLM server answers at {self.url}", got=getattr(error, "reason", None) or error,
                        cure="start it as docs/engines.md says, or use --engine torch",
                    ) from error  # fmt: skip
            except ValueError as error:
                raise self._strange("JSON", error) from error
            time.sleep(pause)
            pause *= 2
        raise AssertionError("the last attempt returns or raises")

    def _strange(self, expected: str, got: object) -> EngineError:
        cure = "is it a vLLM server with --runner pooling? See docs/engines.md"
        return EngineError(f"{self.url} answered strangely", got=str(got)[:200], expected=expected, cure=cure)


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port or an address that is none
        return False


def _vector(data: str | list[float]) -> NDArray[np.float32]:
    """A vector as base64 of little-endian float32, or as a list of numbers."""
    if not isinstance(data, str):
        return np.asarray(data, dtype=np.float32)
    try:
        return np.frombuffer(base64.b64decode(data, validate=True), dtype="<f4")
    except binascii.Error as error:
        raise ValueError("not base64") from error
