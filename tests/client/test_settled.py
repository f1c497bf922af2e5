"""What a session may ask of a server that has its transaction for one tenant."""

from __future__ import annotations

import pytest

from proxy.wire import encode
from tests.client.stage import Client, Stage, assured, done
from tests.rawclient import sqlstates
from tests.transports import Transport

ONE = encode.query(b"SELECT 1")


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


def speaking(stage: Stage) -> tuple[Client, Transport]:
    """A session whose home is acme, in beta's transaction."""
    client = stage.chooser("acme")
    client.says(encode.query(b"SET app.tenant_id = 'beta'"), ONE)
    stage.pools.step()
    server = stage.server()
    server.take()
    server.say(assured(), done())
    client.reads()
    return client, server


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"VALUES (1); RESET ALL; SELECT * FROM t", "25001"),
        (b"SELECT * FROM t; SET app.tenant_id = 'acme'", "42501"),
    ],
)
def test_what_follows_is_not_for_the_tenant_before(stage: Stage, text: bytes, told: str) -> None:
    client, server = speaking(stage)
    client.says(encode.query(text))
    assert b"SELECT" not in server.take()
    server.say(encode.error("syntax error", "42601") + encode.ready_for_query())
    assert sqlstates(client.reads()) == [told]
    stage.leave()
