"""What becomes of the service when disk, files, clock, other writers or clients misbehave?

    python benchmarks/serve/faults.py
    python benchmarks/serve/faults.py --only disk_full two_writers

Each scene breaks one thing under a real server and says what must hold; a scene that cannot be set here (a small disk
needs the right to mount one) is skipped, saying so.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from runs import arguments, keep
from scenes import SCENES, Scene, Skipped


def main(given_arguments: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__, shape="tiny")
    parser.add_argument("--only", nargs="+", choices=list(SCENES), default=list(SCENES))
    options = parser.parse_args(given_arguments)
    if options.smoke:
        options.shape = "tiny"
    record = measured(options)
    keep(f"faults-{options.shape}", record, options)


def measured(options: argparse.Namespace) -> dict[str, object]:
    """What held in each scene, and what did not."""
    told = {}
    for name in options.only:
        with tempfile.TemporaryDirectory(prefix="l2d-fault-") as folder:
            scene = Scene(options, Path(folder))
            try:
                SCENES[name](scene)
            except Skipped as reason:
                told[name] = {"skipped": str(reason)}
            else:
                told[name] = {"held": scene.held, "failed": scene.failed}
            finally:
                scene.close()
        print(f"{name}: {told[name].get('skipped') or verdict(scene)}", flush=True)
    return {"shape": options.shape, "scenes": told}


def verdict(scene: Scene) -> str:
    """A line for people."""
    return "; ".join(["FAILED", *scene.failed]) if scene.failed else f"{len(scene.held)} statements hold"


if __name__ == "__main__":
    main()
