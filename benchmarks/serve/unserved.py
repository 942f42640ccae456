"""The same requests answered without a server: a process that loads the run and does as its standard input says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from hosted import ONE_THREAD, SERVER_CORE
from origin import ROOT


class Offline:
    """`Recommender.recommend_batch` in a process pinned as the server is.

    Args:
        run: that answers.
        histories: of the requests.
        k: list length.
        core: that the process gets.
    """

    def __init__(self, run: Path, histories: Sequence[Any], *, k: int = 10, core: int = SERVER_CORE) -> None:
        environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": str(ROOT / "src")}
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(run)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        os.sched_setaffinity(self.process.pid, {core % (os.cpu_count() or 1)})
        self._say({"histories": histories, "k": k})

    def __enter__(self) -> Offline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.communicate()

    def per_second(self, first: int, count: int, chunk: int) -> float:
        """Requests answered per second, `chunk` of them in a call."""
        return count / float(self._say({"first": first, "count": count, "chunk": chunk})["seconds"])

    def _say(self, message: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        print(json.dumps(message), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the offline engine ended; see above")
        answer: dict[str, Any] = json.loads(line)
        return answer


def main(path: str) -> None:
    import torch

    from l2d.recommender import Recommender, RecommendRequest

    torch.set_num_threads(1)
    run = Recommender.load(path, verify=False)
    given = json.loads(sys.stdin.readline())
    requests = [RecommendRequest(history, given["k"]) for history in given["histories"]]
    run.recommend_batch(requests[:8])
    print("{}", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        places = [place % len(requests) for place in range(asked["first"], asked["first"] + asked["count"])]
        start = time.perf_counter()
        for at in range(0, len(places), asked["chunk"]):
            run.recommend_batch([requests[place] for place in places[at : at + asked["chunk"]]])
        print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
