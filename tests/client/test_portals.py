"""Portals of what the proxy performs itself."""

from __future__ import annotations

import pytest

from proxy.client.portals import bound
from proxy.errors import ProtocolViolation
from proxy.sql.opening import opening
from proxy.wire import encode
from tests.client.stage import Stage
from tests.rawclient import SYNC, error_fields, kinds

STEP = opening(b"SELECT set_config('app.tenant_id', $1, $2)", "app.tenant_id")


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


@pytest.mark.parametrize(
    ("values", "local", "value"),
    [([b"beta", b"f"], False, "beta"), ([b"beta", b"t"], True, "beta"), ([None, b"on"], True, None)],
)
def test_what_a_portal_is_bound_to(values: list[bytes | None], local: bool, value: str | None) -> None:
    assert STEP is not None
    body = encode.bind(b"", b"s", values)[5:]
    portal = bound(STEP.steps[0], b"s", body, len(b"\0s\0"))
    assert (portal.value, portal.local, portal.spent) == (value, local, False)


def test_too_few_values_are_no_portal() -> None:
    assert STEP is not None
    body = encode.bind(b"", b"s", [b"beta"])[5:]
    with pytest.raises(ProtocolViolation, match="requires 2"):
        bound(STEP.steps[0], b"s", body, len(b"\0s\0"))


def test_a_name_is_bound_once(stage: Stage) -> None:
    client = stage.chooser("acme")
    client.says(encode.parse(b"b", b"BEGIN"), encode.bind(b"p", b"b", []), encode.bind(b"p", b"b", []), SYNC)
    frames = client.reads()
    assert kinds(frames) == "12EZ"
    assert error_fields(frames[2].body)["C"] == "42P03"
    stage.leave()
