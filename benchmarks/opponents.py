"""What does latent decoding win, and where does it lose, against everything it replaces and everything it must beat?

    python benchmarks/opponents.py amazon-cds --run runs/amazon-cds --seeds 3
    python benchmarks/opponents.py amazon-beauty --run runs/amazon-beauty --users 500 --only global,vote,beam,grounding

Takes a run that benchmarks/quality.py made. Every decoder of `l2d compare`, and two more rows: `generate` (beam
search as people do it today: ten beams, hence lists of ten) and `grounding-4` (the text of a beam of four). On the
sets of `EXCLUDE_SEEN` no row lists an item of the history.
Writes results/opponents-NAME.json, and the page docs/opponents-NAME.html with its first plot, docs/opponents-NAME.svg.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # before transformers is loaded

from generate import Generate
from l2d import Recommender
from l2d.artifacts import write_json, write_text
from l2d.compare import Contestant
from l2d.compare.report import frontier_svg, render
from l2d.recommender import DECODERS
from l2d.recommender.opponents import Opponents
from lines import Lines
from origin import RESULTS, ROOT, origin

EXCLUDE_SEEN = ("amazon-beauty",)
"""Sets in which no item recurs and whose published figures leave out what the user already has."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="for the result file")
    parser.add_argument("--run", type=Path, required=True, help="a run with a memory")
    parser.add_argument("--users", type=int, default=1000, help="whom language decoders are asked about")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each peer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", default="test")
    parser.add_argument("--only", help="decoders, separated by commas; default all")
    options = parser.parse_args()
    lines, made = Lines(), origin()
    run = Recommender.load(options.run)
    only = options.only.split(",") if options.only else []
    names = only or list(DECODERS)
    extra = [Contestant("generate", "language", Generate(run.backbone, run.prompts, len(run.catalog)))]
    if "grounding" in names:
        four = Opponents(run, options.seed, lines.progress).grounding(beams=4)
        extra.append(Contestant("grounding-4", "language", four))
    found = run.compare(
        names, split=options.split, users=options.users, exclude_seen=options.name in EXCLUDE_SEEN, seed=options.seed,
        seeds=options.seeds, extra=extra, progress=lines.progress, notice=lines.notice,
    )  # fmt: skip
    record = {**found.to_json(), "data": options.name, "only": only, **made}
    write_json(RESULTS / f"opponents-{options.name}.json", record)
    write_text(ROOT / "docs" / f"opponents-{options.name}.html", render(record))
    write_text(ROOT / "docs" / f"opponents-{options.name}.svg", frontier_svg(record))
    for name, row in record["rows"].items():
        here = row.get("sample", row)["metrics"]
        print(f"{name:16} HR@10 {row['metrics']['hr@10']:.4f} on the sample {here['hr@10']:.4f}"
              f"  p50 {row['latency_ms']['p50']:.2f} ms  calls {row['model_calls']:.1f}")  # fmt: skip


if __name__ == "__main__":
    main()
