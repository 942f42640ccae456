"""The routes, against what the library answers to the same questions."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from l2d.errors import ConfigError, DataError
from l2d.recommender import Recommender, RecommendRequest
from l2d.serve.errors import Refused, body, translated
from l2d.serve.schema import MOST_BATCH, MOST_HISTORY
from serving import HERE, app_of, opened
from shop import CATALOG, LOG


@pytest.fixture(scope="module")
def library(run: Path) -> Recommender:
    return opened(run)


@pytest.fixture(scope="module")
def client(library: Recommender) -> Iterator[TestClient]:
    with TestClient(app_of({"shop": library}, read_only=True), base_url=HERE) as asking:
        yield asking


def listed(items: Any) -> list[dict[str, Any]]:
    return [{"item_id": one.item_id, "title": one.title, "score": pytest.approx(one.score, rel=1e-4)} for one in items]


def fault(answer: Any, status: int) -> dict[str, str]:
    assert answer.status_code == status, answer.text
    record = answer.json()
    assert set(record) == {"error", "request_id"}
    assert record["request_id"] == answer.headers["x-request-id"]
    assert set(record["error"]) <= {"what", "got", "expected", "cure"}
    return record["error"]


def test_a_history_of_titles_and_ids_gets_the_library_list(client: TestClient, library: Recommender) -> None:
    history = [CATALOG.titles[3], int(CATALOG.item_ids[5]), CATALOG.item_ids[7]]
    answer = client.post("/v1/recommend", json={"history": history, "k": 7})
    assert answer.status_code == 200
    record = answer.json()
    assert record["items"] == listed(library.recommend(history, k=7))
    assert (record["run"], record["decoder"], record["cold"]) == ("shop", "vote", False)
    assert record["memory_version"] == library.version
    assert record["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("decoder", ["global", "local", "vote", "beam", "popularity", "transitions", "cooccurrence"])
def test_decoder_and_filters_reach_the_library(client: TestClient, library: Recommender, decoder: str) -> None:
    history, exclude, allow = [CATALOG.titles[3]], [CATALOG.titles[8]], list(CATALOG.titles[:20])
    body = {"history": history, "k": 5, "decoder": decoder, "exclude": exclude, "allow": allow, "exclude_seen": True}
    found = client.post("/v1/recommend", json=body).json()
    expected = library.recommend(history, k=5, decoder=decoder, exclude=exclude, allow=allow, exclude_seen=True)
    assert found["items"] == listed(expected)
    assert found["decoder"] == decoder


def test_a_user_is_answered_by_what_the_run_knows_of_him(client: TestClient, library: Recommender) -> None:
    bought = [CATALOG.item_ids[row] for row in LOG.row[LOG.user == 16]]
    record = client.post("/v1/recommend", json={"user": 17}).json()
    assert record["items"] == listed(library.recommend(bought))
    assert client.post("/v1/recommend", json={"user": "17"}).json()["items"] == record["items"]


@pytest.mark.parametrize("body", [{"history": []}, {"user": "nobody has this name"}])
def test_who_was_never_seen_is_cold_and_told_so(client: TestClient, body: dict[str, Any]) -> None:
    record = client.post("/v1/recommend", json={**body, "k": 4}).json()
    assert (record["cold"], record["decoder"], len(record["items"])) == (True, "popularity", 4)


def test_a_batch_gets_the_lists_of_single_requests(client: TestClient, library: Recommender) -> None:
    requests = [
        {"history": [CATALOG.titles[row]], "k": row + 1, "decoder": ("vote", "global")[row % 2]} for row in range(6)
    ]
    record = client.post("/v1/recommend:batch", json={"requests": requests}).json()
    singles = [client.post("/v1/recommend", json=request).json()["items"] for request in requests]
    assert [one["items"] for one in record["responses"]] == [
        [{**item, "score": pytest.approx(item["score"], rel=1e-4)} for item in items] for items in singles
    ]
    offline = library.recommend_batch([RecommendRequest([CATALOG.titles[1]], 2)], decoder="global")
    assert record["responses"][1]["items"] == listed(offline[0])


def test_similar_items_and_the_catalogue(client: TestClient, library: Recommender) -> None:
    title = CATALOG.titles[3]
    record = client.get(f"/v1/similar/{title}", params={"k": 4}).json()
    assert record["items"] == listed(library.similar_items(title, k=4))
    missing = fault(client.get("/v1/similar/AC/DC/Live"), 404)
    assert (missing["got"], missing["cure"]) == ("AC/DC/Live", "search for it: GET /v1/items?query=")
    found = client.get("/v1/items", params={"query": title[:6], "k": 5}).json()["items"]
    assert [one["item_id"] for one in found] == [one.item_id for one in library.find_items(title[:6], k=5)]
    assert title in [one["title"] for one in client.get("/v1/items", params={"query": title}).json()["items"]]


def test_the_memory_is_described(client: TestClient, library: Recommender) -> None:
    record = client.get("/v1/memory").json()
    info = library.memory_info()
    (told,) = record["runs"]
    assert (told["entries"], told["items"], told["users"]) == (info.entries, info.items, info.users)
    assert told["memory_version"] == library.version
    assert told["catalog"] == len(CATALOG)
    assert "beam" in told["decoders"]
    assert not {"sasrec", "d3", "item-head"} & set(told["decoders"]), "nothing that a request would have to train"
    assert record["read_only"] is True


TITLE = CATALOG.titles[0]


@pytest.mark.parametrize(
    ("body", "what", "got"),
    [
        ({}, "either history or user", None),
        ({"history": "Abbey Road"}, "history", "Abbey Road"),
        ({"history": [1.5]}, "history.0", "1.5"),
        ({"history": [True]}, "history.0", "True"),
        ({"history": [""]}, "history.0", None),
        ({"history": ["a\x00b"]}, "history.0", None),
        ({"history": ["x" * 2001]}, "history.0", None),
        ({"history": [TITLE] * (MOST_HISTORY + 1)}, "history", None),
        ({"history": [2**63]}, "history.0", None),
        ({"history": ["No Such Book at All"]}, "unknown item", "'No Such Book at All'"),
        ({"history": [TITLE], "exclude": ["No Such Book at All"]}, "unknown item", "'No Such Book at All'"),
        ({"history": [TITLE], "allow": ["No Such Book at All"]}, "unknown item", "'No Such Book at All'"),
        ({"history": [TITLE], "k": 0}, "k", "0"),
        ({"history": [TITLE], "k": 1001}, "k", "1001"),
        ({"history": [TITLE], "k": "3"}, "k", "3"),
        ({"history": [TITLE], "k": 21, "explain": True}, "k", None),
        ({"history": [TITLE], "decoder": "sasrec"}, "decoder", "sasrec"),
        ({"history": [TITLE], "decoder": "auto"}, "no such decoder", "auto"),
        ({"history": [TITLE], "deadline_ms": 0}, "deadline_ms", "0"),
        ({"history": [TITLE], "filter": {"price": {"near": 3}}}, "filter", None),
        ({"history": [TITLE], "surprise": 1}, "surprise", "1"),
    ],
)
def test_a_bad_request_is_told_what_is_wrong(
    client: TestClient, body: dict[str, Any], what: str, got: str | None
) -> None:
    told = fault(client.post("/v1/recommend", json=body), 422)
    assert what in told["what"]
    if got is not None:
        assert told["got"] == got
    assert len(json.dumps(told)) < 1500


def test_one_bad_request_of_a_batch_is_named(client: TestClient) -> None:
    requests = [{"history": [TITLE]}, {"history": [TITLE], "decoder": "auto"}]
    assert fault(client.post("/v1/recommend:batch", json={"requests": requests}), 422)["what"].startswith("requests.1")
    assert "requests" in fault(client.post("/v1/recommend:batch", json={"requests": []}), 422)["what"]
    for k, explain, count in ((1000, False, 10), (20, True, 50)):
        many = [{"history": [TITLE], "k": k, "explain": explain}] * (count + 1)
        assert f"at most {k * count}" in fault(client.post("/v1/recommend:batch", json={"requests": many}), 422)["what"]
    most = {"requests": [{"history": [TITLE]}] * (MOST_BATCH + 1)}
    assert "requests" in fault(client.post("/v1/recommend:batch", json=most), 422)["what"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"history": ["\\ud800"]}', b"NaN", b"[" * 5000])
def test_what_is_no_json_object_is_refused(client: TestClient, content: bytes) -> None:
    fault(client.post("/v1/recommend", content=content, headers={"content-type": "application/json"}), 422)


def test_an_answer_that_came_too_late_is_not_given(client: TestClient) -> None:
    arm = client.app.state.house.arms.first  # type: ignore[attr-defined]
    assert client.portal is not None
    for seconds, late in ((0.0, False), (0.2, True)):
        work = partial(arm.call, "doze", lambda _, seconds=seconds: time.sleep(seconds))
        with pytest.raises(Refused, match="too late") if late else nullcontext():
            client.portal.call(partial(work, deadline=time.monotonic() + 0.1))


def test_a_body_must_say_that_it_is_json(client: TestClient) -> None:
    content = json.dumps({"history": [TITLE]}).encode()
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        fault(client.post("/v1/recommend", content=content, headers={"content-type": kind}), 422)


def test_a_body_that_is_too_long_is_refused_whether_it_says_so_or_not(client: TestClient) -> None:
    content = b'{"history": ["' + b"x" * (1 << 20) + b'"]}'
    json_body = {"content-type": "application/json"}
    fault(client.post("/v1/recommend", content=content, headers=json_body), 413)
    parts = (content[at : at + 65_536] for at in range(0, len(content), 65_536))
    fault(client.post("/v1/recommend", content=parts, headers=json_body), 413)


def test_no_route_and_no_method(client: TestClient) -> None:
    fault(client.get("/v2/recommend"), 404)
    fault(client.get("/v1/../../etc/passwd"), 404)
    answer = client.get("/v1/recommend")
    fault(answer, 405)
    assert "POST" in answer.headers["allow"]


def test_a_name_that_points_here_from_elsewhere_is_refused(client: TestClient) -> None:
    for name in ("evil.example", "127.0.0.1.evil.example", "[::1", ""):
        fault(client.get("/healthz", headers={"host": name}), 421)
    for name in ("localhost", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST:1"):
        assert client.get("/healthz", headers={"host": name}).status_code == 200


def test_a_page_of_another_site_may_look_and_not_touch(client: TestClient) -> None:
    elsewhere, here = {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-origin"}
    fault(client.post("/v1/recommend", json={"history": []}, headers=elsewhere), 403)
    fault(client.delete("/v1/users/17", headers=elsewhere), 403)
    assert client.post("/v1/recommend", json={"history": []}, headers=here).status_code == 200
    assert client.get("/", headers=elsewhere).status_code == 200


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (ConfigError("runs/shop was opened for reading", cure="load it"), 503, "the run is not open"),
        (ConfigError("runs/shop/live.sqlite is not open", cure="open the run again"), 503, "the run is not open"),
        (ConfigError("runs/shop and /srv/runs/b differ", got="AC/DC/Live"), 422, "<path> and <path> differ"),
        (DataError("unknown user", got="AC/DC/Live"), 422, "unknown user"),
    ],
)
def test_what_a_library_says_is_told_without_paths_and_what_was_asked_whole(
    error: Exception, status: int, told: str
) -> None:
    refused = translated(error)
    assert refused is not None
    text = body(refused.parts, "1").decode()
    assert (refused.status_code, refused.parts["what"].startswith(told)) == (status, True)
    assert "runs/" not in text and ("AC/DC/Live" in text) == (status == 422)


def test_a_number_for_the_log_is_kept_if_it_is_one(client: TestClient) -> None:
    assert client.get("/healthz", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    assert client.get("/healthz", headers={"x-request-id": 'a"b'}).headers["x-request-id"] != 'a"b'


def test_health_readiness_and_metrics(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"ok": True}
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["ready"]) == (200, True)
    before = figures(client)
    client.post("/v1/recommend", json={"history": [TITLE]})
    client.post("/v1/recommend", json={"history": ["No Such Book at All"]})
    client.post("/v1/recommend", json={"history": []})
    after = figures(client)
    labels = 'method="POST",route="/v1/recommend",run="shop",status="200"'
    assert after[f"l2d_requests_total{{{labels}}}"] == before.get(f"l2d_requests_total{{{labels}}}", 0) + 2
    assert after['l2d_batch_size_count{run="shop"}'] == before.get('l2d_batch_size_count{run="shop"}', 0) + 2
    assert after['l2d_cold_total{run="shop"}'] == before.get('l2d_cold_total{run="shop"}', 0) + 1
    for run in ("", "shop"):
        assert after[f'l2d_requests_total{{method="GET",route="/v1/similar/{{item}}",run="{run}",status="500"}}'] == 0
    refused = 'l2d_refused_total{reason="input",run=""}'
    assert after[refused] == before.get(refused, 0) + 1
    assert after['l2d_memory_entries{run="shop"}'] == client.get("/v1/memory").json()["runs"][0]["entries"]
    assert after["process_resident_memory_bytes"] > 1e6


def figures(client: TestClient) -> dict[str, float]:
    """Samples of /metrics by name and labels as they are written there, the labels in order."""
    found = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def test_the_page_may_load_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"].startswith("default-src 'self'")
    assert page.headers["x-content-type-options"] == "nosniff"
    assert client.get("/", headers={"if-none-match": page.headers["etag"]}).status_code == 304


def test_a_fault_of_ours_shows_nothing_but_a_number(
    library: Recommender, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with TestClient(app_of({"shop": library}, read_only=True, quiet=False), base_url=HERE) as asking:
        monkeypatch.setattr(library, "similar_items", lambda *_, **__: 1 / 0)
        answer = asking.get(f"/v1/similar/{TITLE}")
    told = fault(answer, 500)
    assert told == {"what": "the server failed", "cure": "tell its operator the request_id"}
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    (failure,) = [line for line in lines if "failure" in line]
    assert "ZeroDivisionError" in failure["failure"]
    assert failure["request_id"] == answer.headers["x-request-id"]
    assert lines[-1]["status"] == 500


def test_an_error_of_a_file_does_not_say_where_it_lies(library: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    from l2d.errors import ArtifactCorrupt

    def broken(*_: object, **__: object) -> None:
        raise ArtifactCorrupt(f"{library.path}/decoder.json was changed", cure=f"run `l2d memory build {library.path}`")

    with TestClient(app_of({"shop": library}, read_only=True), base_url=HERE) as asking:
        monkeypatch.setattr(library, "similar_items", broken)
        text = asking.get(f"/v1/similar/{TITLE}").text
    assert str(library.path) not in text
    assert "l2d memory" not in text
