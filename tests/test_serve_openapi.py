"""The OpenAPI description: kept in the project, and true of the server whatever it is asked."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings

from l2d.serve.description import text
from serving import ROOT, app_of, listening, opened

CASES, LONG_CASES = 25, 2_000
"""Per route."""

DOCUMENTED = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)


def test_the_kept_description_is_that_of_the_program() -> None:
    assert (ROOT / "docs" / "openapi.json").read_text(encoding="utf-8") == text(), "run `make docs`"


def test_every_body_has_an_example_that_is_valid() -> None:
    from l2d.serve import schema

    for model in (schema.RecommendBody, schema.BatchBody, schema.InteractionsBody, schema.ItemsBody):
        for example in model.model_config["json_schema_extra"]["examples"]:  # type: ignore[index,call-overload,union-attr]
            model.model_validate(example)


def fuzz(run: Path, cases: int) -> Counter[int]:
    """Asks what the description allows, and what it forbids; counts answers by status."""
    app = app_of({"shop": opened(run)}, read_only=True, deadline_ms=60_000)
    described = schemathesis.openapi.from_dict(app.openapi())
    checks = [schemathesis.checks.CHECKS.get_one(name) for name in DOCUMENTED]
    statuses: Counter[int] = Counter()
    options = {"max_examples": cases, "deadline": None, "derandomize": True, "database": None}
    with listening(app) as address:
        for found in described.get_all_operations():

            @settings(**options, suppress_health_check=list(HealthCheck))  # type: ignore[arg-type]
            @given(found.ok().as_strategy())
            def ask(case: Any) -> None:
                answer = case.call(base_url=address)
                statuses[answer.status_code] += 1
                case.validate_response(answer, checks=checks)

            ask()
    return statuses


def test_nothing_that_the_description_allows_or_forbids_brings_it_down(run: Path) -> None:
    statuses = fuzz(run, CASES)
    assert sum(statuses.values()) >= 10 * CASES
    assert {200, 422} <= set(statuses)


@pytest.mark.long
def test_twenty_thousand_cases(run: Path) -> None:
    fuzz(run, LONG_CASES)
