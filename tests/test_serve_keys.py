"""Keys: made, kept as digests, and asked for on every route."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from l2d.errors import DataError
from l2d.serve.keys import SCOPES, Key, read_keys
from l2d.serve.routes import PUBLIC, ScopedRoute
from l2d.serve.static import page_files
from serving import HERE, app_of, opened
from shop import CATALOG, ok, refused

HELD = {"reader": ("read",), "writer": ("write",), "auditor": ("audit",), "owner": SCOPES}

SCOPE_OF = {
    "POST /v1/recommend": "read",
    "POST /v1/recommend:batch": "read",
    "GET /v1/similar/{item}": "read",
    "GET /v1/items": "read",
    "PUT /v1/items": "write",
    "POST /v1/interactions": "write",
    "DELETE /v1/users/{user_id}": "write",
    "GET /v1/memory": "read",
    "POST /v1/reload": "audit",
    "GET /metrics": "read",
    "GET /healthz": PUBLIC,
    "GET /readyz": PUBLIC,
    "GET /openapi.json": PUBLIC,
    "GET /": PUBLIC,
}
"""What every route needs, apart from the page's other files."""


@pytest.fixture(scope="module")
def app(run: Path) -> FastAPI:
    keys = [Key(name, hashlib.sha256(name.encode()).hexdigest(), frozenset(scopes)) for name, scopes in HELD.items()]
    return app_of({"shop": opened(run)}, keys, read_only=True)


@pytest.fixture(scope="module")
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, base_url="http://shop.example") as asking:
        yield asking


def test_every_route_is_known_with_its_scope(app: FastAPI) -> None:
    found = {}
    for route in app.routes:
        assert isinstance(route, ScopedRoute), f"{route} asks for no key"
        for method in route.methods or ():
            found[f"{method} {route.path_format}"] = route.needs
    page = {f"GET /{name}" for name in page_files()} - {"GET /index.html"}
    assert {name: scope for name, scope in found.items() if name not in page} == SCOPE_OF
    assert {found[name] for name in page} <= {PUBLIC}


@pytest.mark.parametrize("route", SCOPE_OF)
def test_a_route_opens_to_its_scope_alone(client: TestClient, route: str) -> None:
    method, path = route.split()
    path = path.replace("{item}", CATALOG.item_ids[3]).replace("{user_id}", "17")
    needs = SCOPE_OF[route]
    closed = {401, 403} if needs != PUBLIC else set()
    for header in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic reader"}, {"authorization": ""}):
        answer = client.request(method, path, headers=header)
        assert (answer.status_code == 401) == (needs != PUBLIC), header
        assert ("www-authenticate" in answer.headers) == (needs != PUBLIC)
    for name, scopes in HELD.items():
        answer = client.request(method, path, headers={"authorization": f"Bearer {name}"})
        told = answer.json().get("error", {}).get("what", "") if answer.status_code in closed else ""
        assert ("scope" in told) == (needs not in (*scopes, PUBLIC)), (name, answer.text)


def test_a_key_is_asked_for_before_anything_is_read(client: TestClient) -> None:
    assert client.post("/v1/recommend", content=b"{").status_code == 401


def test_readiness_is_told_to_all_and_what_runs_there_are_to_those_with_a_key(client: TestClient) -> None:
    assert client.get("/readyz").json() == {"ready": True, "draining": False}
    wrong = {"authorization": "Bearer l2d_wrong"}
    assert client.get("/readyz", headers=wrong).json() == {"ready": True, "draining": False}
    (name,) = [
        one["run"]
        for one in client.get("/readyz", headers={"authorization": f"Bearer {next(iter(HELD))}"}).json()["runs"]
    ]
    assert name == "shop"


def test_only_an_auditor_reads_whose_histories_they_were(client: TestClient) -> None:
    body = {"history": [CATALOG.titles[3]], "k": 2, "explain": True}

    def explained(name: str) -> dict[str, Any]:
        answer = client.post("/v1/recommend", json=body, headers={"authorization": f"Bearer {name}"})
        return answer.json()["items"][0]["explanation"]

    assert "users" not in explained("reader")
    assert explained("owner")["users"]


def test_without_keys_nobody_is_an_auditor(run: Path) -> None:
    with TestClient(app_of({"shop": opened(run)}, read_only=True), base_url=HERE) as client:
        assert client.post("/v1/reload").status_code == 403
        body = {"history": [CATALOG.titles[3]], "k": 2, "explain": True}
        assert "users" not in client.post("/v1/recommend", json=body).json()["items"][0]["explanation"]


def test_a_key_is_shown_once_and_kept_as_a_digest(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    key = ok("keys", "add", file, "--name", 'shöp "1"', "--scope", "read", "--scope", "write").out.strip()
    other = ok("keys", "add", file, "--name", "other", "--scope", "audit").out.strip()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert key not in file.read_text() and other not in file.read_text()
    ring = read_keys(file)
    assert ring.holder(f"Bearer {key}").name == 'shöp "1"'
    assert ring.holder(f"bearer {key}").scopes == {"read", "write"}
    assert ring.holder(f"Bearer {other}").scopes == {"audit"}
    assert "other" in refused("keys", "add", file, "--name", "other", "--scope", "read")
    assert "delete" in refused("keys", "add", file, "--name", "third", "--scope", "delete")
    assert len(read_keys(file).keys) == 2


@pytest.mark.parametrize(
    "text",
    [
        "", "keys = 3", "[[keys]]\nname = 'a'", "not toml", "[[keys]]\nname='a'\nsha256='abc'\nscopes=['read']",
        f"[[keys]]\nname='a'\nsha256='{'0' * 64}'\nscopes=['all']",
        f"[[keys]]\nname='a'\nsha256='{'0' * 64}'\nscopes=[]",
        f"[[keys]]\nsha256='{'0' * 64}'\nscopes=['read']", f"[[keys]]\nname='a'\nsha256='{'0' * 64}'\nscopes=[3]",
        f"[[keys]]\nname='a'\nsha256='{'0' * 64}'\nscopes=[['read']]",
    ],
)  # fmt: skip
def test_a_file_that_holds_no_keys_lets_no_server_start(tmp_path: Path, text: str) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(text)
    with pytest.raises(DataError):
        read_keys(file)
    assert "keys.toml" in refused("serve", tmp_path, "--keys", file)


def test_a_server_that_others_reach_needs_keys(tmp_path: Path) -> None:
    assert "--keys" in refused("serve", tmp_path, "--host", "0.0.0.0")
    assert "--keys" in refused("serve", tmp_path, "--host", "shop.example")
