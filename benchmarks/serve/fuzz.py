"""Does anything that the OpenAPI description allows, or forbids, bring the server down?

    python benchmarks/serve/fuzz.py --cases 20000

Schemathesis makes requests from the served description, right and wrong ones, on every route, with a key of all scopes.
What must hold: no 5xx but a 503 that says when to come back, answers as described, none that takes longer than half a
minute, memory bounded. Requests and their statuses are counted by the server, not by the tool.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hosted import Hosted
from runs import arguments, copied, keep, prepared
from soak import Watch

CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance",
    "response_headers_conformance", "negative_data_rejection", "missing_required_header", "unsupported_method",
    "ignored_auth",
)  # fmt: skip

CONFIGURATION = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", "503"]
[checks.negative_data_rejection]
expected-statuses = ["4xx", "503"]
"""
"""A 503 is how a busy server refuses; it is counted apart."""

LONGEST = 400
"""Characters of a line that is shown: bodies may have a million."""

HANGS = 30
"""Seconds after which a request counts as one that hangs."""


def main(given_arguments: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__, shape="tiny")
    parser.add_argument("--cases", type=int, default=20_000, help="at least, over all routes")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(given_arguments)
    if options.smoke:
        options.shape, options.cases = "tiny", 100
    record = measured(options)
    keep(f"fuzz-{options.shape}", record, options)


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """The record."""
    with tempfile.TemporaryDirectory(prefix="l2d-fuzz-") as folder:
        run = copied(prepared(options.shape, options.run), Path(folder) / "run")
        keys = Path(folder) / "keys.toml"
        key = made_key(keys)
        serve = ["--keys", str(keys), *options.serve]
        with Hosted(run, options=serve, key=key) as server, Watch(server, every=1.0) as watch:
            routes = sum(len(methods) for methods in server.ask("GET", "/openapi.json")[1]["paths"].values())
            rounds, told, code = 0, "", 0
            seen: Counter[str] = Counter()
            while (missing := options.cases - sum(seen.values())) > 0 and not code:
                code, told = fuzzed(server, Path(folder), -(-missing // routes) + 1, options.seed + rounds)
                rounds += 1
                seen = by_status(server.metrics())
            alive = server.ask("GET", "/readyz")[0]
            exit_code = server.stop()
            server_said = "\n".join(line for line in server.told(1 << 30).splitlines() if '"failure"' in line)
    record = {
        "shape": options.shape, "routes": routes, "requests": sum(seen.values()), "status": dict(sorted(seen.items())),
        "seed": options.seed, "rounds": rounds, "failures": failures(told) if code else [], "passed": not code,
        "ready_afterwards": alive == 200, "exit_code": exit_code,
        "memory_mib": {"first": watch.rows[0][1], "most": max(mib for _, mib in watch.rows)},
    }  # fmt: skip
    if code:
        print("\n".join(line[:LONGEST] for line in told.splitlines() if line.strip()), flush=True)
        print(server_said, flush=True)
    print(f"{record['requests']} requests on {routes} routes: {record['status']}; failures: {record['failures']}")
    return record


def made_key(keys: Path, *scopes: str) -> str:
    """A new key of these scopes, or of all."""
    from l2d.serve.keys import SCOPES, add_key

    return add_key(keys, f"key-{len(keys.read_text()) if keys.exists() else 0}", scopes or SCOPES)


def fuzzed(server: Hosted, folder: Path, examples: int, seed: int) -> tuple[int, str]:
    """One run of the tool: its exit code and what it wrote."""
    configuration = folder / "schemathesis.toml"
    configuration.write_text(CONFIGURATION)
    command = [
        sys.executable, "-m", "schemathesis.cli", "--config-file", str(configuration), "run",
        f"http://127.0.0.1:{server.port}/openapi.json", "--header", f"Authorization: Bearer {server.key}",
        "--checks", ",".join(CHECKS), "--max-examples", str(examples), "--seed", str(seed), "--no-color",
        "--request-timeout", str(HANGS), "--generation-database", "none", "--suppress-health-check", "all",
        "--warnings", "off", "--continue-on-failure",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    return done.returncode, done.stdout + done.stderr


def by_status(metrics: Mapping[str, float]) -> Counter[str]:
    """Answered requests by status."""
    found: Counter[str] = Counter()
    for name, value in metrics.items():
        if name.startswith("l2d_requests_total{"):
            status = re.search(r'status="(\d+)"', name)
            found[status[1] if status else "?"] += int(value)
    return found


def failures(told: str) -> list[str]:
    """The kinds of failure that the tool names."""
    return sorted(set(re.findall(r"^- (.+)$", told, re.MULTILINE)))


if __name__ == "__main__":
    main()
