"""Matrix kernels for ever new lengths: a process that lives keeps a bounded number of them."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

from l2d.backbone.kernels import CAPACITY, VARIABLES, bound_kernels

LENGTHS = """
import ctypes
from l2d.backbone import scratch_backbone
from l2d.thoughts import TorchThinker
import numpy as np, torch

class Heap(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena a b c d e f used free g".split()]

library = ctypes.CDLL(None)
library.mallinfo2.restype = Heap
thinker = TorchThinker(scratch_backbone("scratch:small", ["A title", "Another"]).settle())
used = []
for length in range(20, 140):
    thinker.think([np.ones(length, dtype=np.int32)])
    if length in (69, 139):
        used.append(library.mallinfo2().used)
print((used[1] - used[0]) / 2**20)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="glibc 2.33 tells what the heap holds")
def test_new_lengths_do_not_fill_the_memory() -> None:
    known = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", LENGTHS],
        env={**known, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(done.stdout) < 8  # MiB that 70 new lengths add after 50 others; 80 without a bound


def test_what_the_environment_says_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = VARIABLES
    monkeypatch.setenv(first, "7")
    monkeypatch.delenv(second, raising=False)
    bound_kernels()
    assert (os.environ[first], os.environ[second]) == ("7", str(CAPACITY))
