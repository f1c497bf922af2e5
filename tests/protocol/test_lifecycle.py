import pytest

from proxy.protocol.lifecycle import (
    SERVER,
    SESSION,
    LifecycleError,
    ServerState,
    SessionState,
    Stage,
    step,
)


def test_the_tables_name_every_state() -> None:
    for table, states in ((SERVER, ServerState), (SESSION, SessionState)):
        assert set(table) == {each for each in vars(states).values() if isinstance(each, Stage)}


def test_what_is_not_in_the_table_is_an_error() -> None:
    assert step("server", ServerState.IDLE, "checkout") is ServerState.ACTIVE
    with pytest.raises(LifecycleError):
        step("server", ServerState.GONE, "checkout")
    with pytest.raises(LifecycleError):
        step("session", SessionState.WAITING, "unlink")


def test_every_live_state_can_end() -> None:
    for state, events in SERVER.items():
        assert state is ServerState.GONE or events["lost"] is ServerState.GONE
    for session, steps in SESSION.items():
        assert session is SessionState.CLOSED or steps["close"] is SessionState.CLOSED
