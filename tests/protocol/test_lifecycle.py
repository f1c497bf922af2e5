import pytest

from proxy.protocol.lifecycle import (
    SERVER,
    SESSION,
    LifecycleError,
    ServerState,
    SessionState,
    server_step,
    session_step,
)


def test_the_tables_name_every_state() -> None:
    assert set(SERVER) == set(ServerState)
    assert set(SESSION) == set(SessionState)


def test_what_is_not_in_the_table_is_an_error() -> None:
    assert server_step(ServerState.IDLE, "checkout") is ServerState.ACTIVE
    with pytest.raises(LifecycleError):
        server_step(ServerState.GONE, "checkout")
    with pytest.raises(LifecycleError):
        session_step(SessionState.WAITING, "unlink")


def test_every_live_state_can_end() -> None:
    for state, events in SERVER.items():
        assert state is ServerState.GONE or events["lost"] is ServerState.GONE
    for session, steps in SESSION.items():
        assert session is SessionState.CLOSED or steps["close"] is SessionState.CLOSED
