"""What each message of a client becomes on its server connection, and what the client then hears."""

from __future__ import annotations

import pytest

from proxy.wire import encode
from tests.client.stage import Stage

HUGE = 2_000_000  # beyond what is held until it is whole
SMUGGLED = encode.query(b"SET app.tenant_id = 'beta'")


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


def begun(kind: bytes, head: bytes, length: int = HUGE) -> bytes:
    """The first part of a frame of `length` bytes."""
    return kind + length.to_bytes(4, "big") + head


@pytest.mark.parametrize(
    "head",
    [
        begun(b"F", (2078).to_bytes(4, "big") + bytes(20_000)),
        begun(b"D", b"Stiergate_1" + b"x" * 20_000 + b"\0"),
        begun(b"C", b"Stiergate_1" + b"x" * 20_000 + b"\0"),
    ],
    ids=["FunctionCall", "Describe", "Close"],
)
def test_the_body_of_a_frame_that_is_exchanged_never_reaches_the_server(stage: Stage, head: bytes) -> None:
    """It would be read as frames there, which nobody has looked at."""
    client, server = stage.linked()
    client.says(head)
    if not client.transport.closed:
        client.says(SMUGGLED)
    assert SMUGGLED not in server.take()
    stage.leave()


def test_the_body_of_a_sync_behind_a_reset_never_reaches_the_server(stage: Stage) -> None:
    client, server = stage.linked()
    client.says(encode.parse(b"", b"RESET ALL") + encode.bind(b"", b"", []) + encode.execute())
    client.says(begun(b"S", bytes(20_000)))
    if not client.transport.closed:
        client.says(SMUGGLED)
    assert SMUGGLED not in server.take()
    stage.leave()
