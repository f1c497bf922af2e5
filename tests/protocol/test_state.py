from hypothesis import given
from hypothesis import strategies as st

from proxy.protocol.state import EMPTY, difference, intern, set_config, with_parameter
from proxy.wire import decode
from proxy.wire.frames import FRAME, FROM_CLIENT, Scanner

parameters = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("12345"))


def test_equal_states_are_the_same_object() -> None:
    assert intern({"a": "1", "b": "2"}) is intern({"b": "2", "a": "1"})
    state = with_parameter(intern({"a": "1"}), "b", "2")
    assert state is intern({"a": "1", "b": "2"})
    assert with_parameter(state, "a", "1") is state


@given(parameters, parameters, parameters)
def test_applying_the_difference_gives_what_is_needed(
    login: dict[str, str], old: dict[str, str], new: dict[str, str]
) -> None:
    server = {**login, **old}
    for name, value in difference(intern(old), intern(new), login).items():
        if value is None:
            server.pop(name)
            if name in login:
                server[name] = login[name]
        else:
            server[name] = value
    expected = {**login, **new}
    assert server == expected


def test_no_difference_to_what_the_login_reported() -> None:
    assert difference(EMPTY, intern({"client_encoding": "UTF8"}), {"client_encoding": "UTF8"}) == {}


def test_values_are_bound_and_never_part_of_the_text() -> None:
    hostile = "x'); DROP TABLE t; --"
    scanner = Scanner(FROM_CLIENT)
    scanner.feed(set_config({"app.tenant_id": hostile, "work_mem": None}))
    assert scanner.next() == FRAME
    parse = decode.parse(scanner.data[scanner.start + 5 : scanner.stop])
    assert b"DROP" not in parse.text
    assert parse.text.count(b"pg_catalog.set_config") == 2
    assert scanner.next() == FRAME
    bind = scanner.data[scanner.start : scanner.stop]
    assert hostile.encode() in bind
    assert b"\0\0\0\x08work_mem\xff\xff\xff\xff" in bind
