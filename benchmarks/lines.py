"""What a long benchmark says on its way."""

from __future__ import annotations

import sys
import time


class Lines:
    """Progress and notices as lines on stderr."""

    def __init__(self) -> None:
        self.shown = 0.0

    def notice(self, line: str) -> None:
        """Says a line."""
        print(line, file=sys.stderr, flush=True)

    def progress(self, stage: str, done: int, total: int) -> None:
        """Says twice a minute how far a stage is."""
        if time.perf_counter() - self.shown > 30:
            self.shown = time.perf_counter()
            self.notice(f"  {stage} {done}/{total}")
