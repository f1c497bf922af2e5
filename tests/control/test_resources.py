"""What the file says of a tenant's other stores is told without its passwords, however they are written."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from proxy.control import resources
from tests.settings.parsing import good


def told(**store: Any) -> dict[str, Any]:
    directory = replace(good("").directory, stores={("tenant", "acme"): {"kafka": store}})
    found = resources.others("acme", "", "free", directory)["kafka"]
    assert found is not None
    return found


@pytest.mark.parametrize(
    "said",
    [
        "redis://user:hunter2@host:6379/0",
        "redis://:hunter2@host",
        "redis://user:a/hunter2/b@host",
        "http://user:x@hunter2@host",
        "http://user:one@host1,http://user:hunter2@host2",
        "host=db user=app password=hunter2",
        "host=db password = 'hunter2'",
        'Module required username="app" password="hunter2";',
        "jdbc:postgresql://host/db?user=app&password=hunter2",
    ],
)
def test_no_password(said: str) -> None:
    assert "hunter2" not in str(told(url=said, of=[{"more": said}]))


def test_the_rest_stays() -> None:
    said = {
        "url": "redis://user:x@host:6379/0",
        "hosts": ["a:1", "b:2"],
        "port": 9000,
        "dsn": "host=db user=app",
    }
    assert told(**said) == said | {"url": "redis://user@host:6379/0"}
    assert "token" not in told(token="x")
