"""The API does what its OpenAPI document says, whatever is asked: schemathesis finds nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase
from schemathesis.specs.openapi.checks import positive_data_acceptance

from proxy.cli.embedded import free_port
from tests.control.api import calling
from tests.control.api.calling import TOKENS, Managed, call

if TYPE_CHECKING:
    from proxy.cli.embedded import EmbeddedServer
    from tests.conftest import StartProxy

EXAMPLES = int(os.environ.get("TIERGATE_API_EXAMPLES", "4"))  # of each operation, which has some by itself
# What a document cannot say: which version a change is of, and what places and quotas there can be.
BEYOND_IT = (412, 422, 428)


@pytest.fixture(scope="module")
def api(start_module_proxy: StartProxy, shared: EmbeddedServer) -> Iterator[Managed]:
    with calling.registry(shared) as dsn:
        managed = Managed(
            start_module_proxy(calling.tables(shared), http_addr=f"127.0.0.1:{free_port()}"), dsn
        )
        for code in ("acme", "globex"):
            said = {"tenant_code": code, "tenant_name": code, "tier": "free"}
            assert call(managed, "POST", "/v1/tenants", json=said).status_code == 201
        yield managed
        managed.close()


def problems(operation: Any, base_url: str) -> list[str]:
    headers = {"Authorization": f"Bearer {TOKENS['admin']}"}
    changes = operation.method in ("post", "patch", "delete") and "/tenants" in operation.path

    @hypothesis.seed(1)
    @hypothesis.settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy())
    def holds(case: schemathesis.Case) -> None:
        response = case.call(base_url=base_url, headers=headers)
        beyond = changes and response.status_code in BEYOND_IT
        case.validate_response(response, excluded_checks=[positive_data_acceptance] if beyond else [])
        if response.status_code in (422, 428):
            assert response.json()["field"]

    try:
        holds()
    except BaseExceptionGroup as error:
        return [f"{operation.method} {operation.path}: {one}" for one in error.exceptions]
    return []


def test_schemathesis_finds_nothing(api: Managed) -> None:
    schema = schemathesis.openapi.from_dict(call(api, "GET", "/openapi.json", None).json())
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) > 20
    base_url = f"http://127.0.0.1:{api.http_port}"
    found = [problem for operation in operations for problem in problems(operation, base_url)]
    assert not found, "\n\n".join(found)
