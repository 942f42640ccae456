"""What runs the server in containers: files that parse, sources that exist, options and metrics that there are."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from hosted import Hosted
from l2d import cli

ROOT = Path(__file__).resolve().parent.parent
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
PROMETHEUS = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text())
ALERTS = yaml.safe_load((ROOT / "deploy" / "alerts.yml").read_text())
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "dashboards" / "l2d.json").read_text())
SOURCES = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yaml").read_text())
SERVING = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
METRIC = re.compile(r"\b(?:l2d|process)_[a-z0-9_]+")
OF_A_HISTOGRAM = re.compile(r"_(bucket|sum|count)$")


def instructions() -> list[tuple[str, str]]:
    """Of the Dockerfile, with their continuation lines."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def parsed(words: list[str]) -> Any:
    """A command line as the program takes it apart; an option that it has not is an error."""
    from typer.main import get_command

    command = get_command(cli.app)
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    assert not hasattr(command, "commands"), f"{words[0]} is no command"
    return command.make_context("l2d", list(words)).params


def test_what_the_image_copies_is_there_and_let_in() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    copied = [source for name, rest in instructions() if name == "COPY" and "--from" not in rest
              for source in rest.split()[:-1]]  # fmt: skip
    assert {"constraints.txt", "pyproject.toml", "src"} <= set(copied)
    for source in copied:
        assert (ROOT / source).exists() and f"!{source}" in ignored, source
    needed = (ROOT / "pyproject.toml").read_text()
    assert 'readme = "README.md"' in needed and {"README.md", "LICENSE"} <= set(copied), "the build reads them"


def test_the_image_starts_the_server_as_nobody_in_particular_and_without_a_shell() -> None:
    found = dict(instructions())
    entry, command = json.loads(found["ENTRYPOINT"]), json.loads(found["CMD"])
    assert entry == ["l2d"] and found["STOPSIGNAL"] == "SIGTERM"
    assert found["USER"].split(":")[0] not in ("root", "0")
    options = parsed(command)
    assert options["host"] == "0.0.0.0" and options["keys"], "a public address needs keys"
    assert f"EXPOSE {options['port']}" in (ROOT / "Dockerfile").read_text()
    assert f"127.0.0.1:{options['port']}/readyz" in found["HEALTHCHECK"]


def test_the_services_fit_together() -> None:
    services = COMPOSE["services"]
    server = services["l2d"]
    options = parsed(server["command"])
    assert str(options["keys"]) == "/run/secrets/l2d-keys" and "l2d-keys" in server["secrets"]
    assert server["read_only"] and server["cap_drop"] == ["ALL"]
    assert server["init"], "what a dead process leaves behind is collected"
    drain = int(server["stop_grace_period"].removesuffix("s"))
    assert drain > options["drain_seconds"], "the server must end before it is killed"
    assert any(volume.endswith(f":{options['runs'][0]}") for volume in server["volumes"])
    (scrape,) = PROMETHEUS["scrape_configs"]
    assert scrape["static_configs"] == [{"targets": [f"l2d:{options['port']}"]}]
    assert scrape["authorization"]["credentials_file"] == f"/run/secrets/{services['prometheus']['secrets'][0]}"
    assert SOURCES["datasources"][0]["url"] == "http://prometheus:9090"


def test_what_is_mounted_is_there_and_every_secret_is_declared() -> None:
    for name, service in COMPOSE["services"].items():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("./"):
                assert (ROOT / source).exists(), (name, volume)
            elif not source.startswith("${"):
                assert source in COMPOSE["volumes"], (name, volume)
        assert set(service.get("secrets", ())) <= COMPOSE["secrets"].keys()
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), "nothing is public by itself"
    ignored = (ROOT / ".gitignore").read_text().split()
    for secret in COMPOSE["secrets"].values():
        assert secret["file"].startswith("./deploy/secrets/") and "/deploy/secrets/" in ignored


def expressions() -> list[str]:
    """All queries of dashboard and alerts."""
    asked = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    asked += [rule["expr"] for group in ALERTS["groups"] for rule in group["rules"]]
    return asked + [one["query"] for one in DASHBOARD["templating"]["list"]]


def test_panels_do_not_overlap_and_ask_the_source_that_there_is() -> None:
    places, uid = set(), SOURCES["datasources"][0]["uid"]
    for panel in DASHBOARD["panels"]:
        assert panel["datasource"]["uid"] == uid and panel["targets"] and panel["description"]
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & places and at["x"] + at["w"] <= 24
        places |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


@pytest.fixture(scope="module")
def measured(run: Path) -> dict[str, set[str]]:
    """The metrics of a real server that has answered and refused, with their labels."""
    with Hosted(run, options=["--read-only"], core=None) as server:
        assert server.ask("POST", "/v1/recommend", {"history": [], "k": 1})[0] == 200
        assert server.ask("POST", "/v1/interactions", {"interactions": [{"user_id": "1", "item_id": "1"}]})[0] == 403
        found: dict[str, set[str]] = {}
        for name in server.metrics():
            base, _, labels = name.partition("{")
            found.setdefault(base, set()).update(re.findall(r'(\w+)="', labels))
        declared = re.findall(r"^# TYPE (\w+) (\w+)$", server.ask("GET", "/metrics")[1], re.MULTILINE)
    for name, kind in declared:  # some have no sample before something happens
        for end in {"counter": ("",), "histogram": ("_bucket", "_sum", "_count")}.get(kind, ("",)):
            found.setdefault(name + end, set())
    return found


def test_dashboard_and_alerts_name_metrics_and_labels_that_a_server_has(measured: dict[str, set[str]]) -> None:
    asked = [(name, expression) for expression in expressions() for name in METRIC.findall(expression)]
    assert len({name for name, _ in asked}) > 12
    for name, expression in asked:
        assert name in measured, expression
        labels = re.findall(rf"{name}\{{([^}}]*)\}}", expression)
        for label in re.findall(r"(\w+)=~?\"", ",".join(labels)):
            assert label in measured[name] | {"job"} or not measured[name], (label, expression)


def test_the_documentation_lists_the_metrics_that_a_server_has(measured: dict[str, set[str]]) -> None:
    told = set(re.findall(r"`(l2d_[a-z_]+)`", SERVING))
    own = {OF_A_HISTOGRAM.sub("", name) for name in measured if name.startswith("l2d_")}
    own = {name for name in own if not name.endswith("_created")} - {"l2d_info"}
    assert told == own


def every_option(command: Any) -> set[str]:
    """Of a command and of those below it."""
    own = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return own.union(*map(every_option, getattr(command, "commands", {}).values()))


def test_commands_of_the_documentation_exist() -> None:
    from typer.main import get_command

    blocks = re.findall(r"^```(?:bash)?\n(.*?)^```$", SERVING, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("l2d ")]
    assert len(lines) >= 5
    for line in lines:
        parsed(shlex.split(line.partition(" > ")[0])[1:])
    options = every_option(get_command(cli.app))
    for option in re.findall(r"`(--[a-z-]+)[` ]", SERVING):
        assert option in options | {"--smoke"}, option
