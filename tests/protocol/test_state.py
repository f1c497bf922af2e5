from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.protocol.pipeline import DROP, Pipeline
from proxy.protocol.state import (
    EMPTY,
    State,
    difference,
    in_order,
    intern,
    set_again,
    set_config,
    set_first,
    with_changes,
    with_parameter,
)
from proxy.wire import decode, encode
from proxy.wire.frames import FRAME, FROM_CLIENT, Scanner
from tests.client.simulated import SimulatedServer
from tests.client.stage import frames

parameters = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("12345"))


def test_equal_states_are_the_same_object() -> None:
    assert intern({"a": "1", "b": "2"}) is intern({"b": "2", "a": "1"})
    state = with_parameter(intern({"a": "1"}), "b", "2")
    assert state is intern({"a": "1", "b": "2"})
    assert with_parameter(state, "a", "1") is state


def test_changes_are_taken_into_a_state() -> None:
    state = with_changes(intern({"a": "1", "b": "2"}), {"a": None, "b": "3", "c": "4", "d": None})
    assert state is intern({"b": "3", "c": "4"})
    assert with_changes(state, {}) is state


ROLE_ORDERS: list[tuple[dict[str, str], dict[str, str], list[str]]] = [
    ({}, {"a": "1"}, ["a=1"]),
    ({}, {"role": "x", "a": "1"}, ["a=1", "role=x"]),
    ({"role": "x", "a": "1"}, {}, ["role", "a"]),
    ({"role": "x"}, {"role": "y"}, ["role", "role=y"]),
    ({"role": "x"}, {"role": "x", "a": "1"}, ["role", "a=1", "role=x"]),
    ({"role": "x"}, {"role": "x"}, []),
    ({"role": "x", "a": "1"}, {"role": "x", "a": "2"}, ["role", "a=2", "role=x"]),
    ({"role": "none"}, {"a": "1"}, ["a=1"]),
]


@pytest.mark.parametrize(("has", "needs", "order"), ROLE_ORDERS)
def test_a_role_is_left_first_and_taken_last(
    has: dict[str, str], needs: dict[str, str], order: list[str]
) -> None:
    before, after = State(has), State(needs)
    found = in_order(difference(before, after, {}), before, after)
    assert [name if value is None else f"{name}={value}" for name, value in found] == order


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


@pytest.mark.parametrize("put", [set_first, set_again])
def test_any_number_of_changes_is_taken_in_batches(
    put: Callable[[Pipeline, list[tuple[str, str | None]]], bytes],
) -> None:
    server, pipeline = SimulatedServer(), Pipeline()
    changes = {f"own.p{number}": str(number) for number in range(120)}
    said = frames(server.feed(put(pipeline, [*changes.items()]) + encode.SYNC))
    for frame in said[: said.index(next(frame for frame in said if frame.kind == "Z"))]:
        assert pipeline.reply(ord(frame.kind)) == DROP
    assert "E" not in [frame.kind for frame in said]
    assert {name: server.values[name] for name in changes} == changes
    assert set(server.statements) == set()


def test_values_are_bound_and_never_part_of_the_text() -> None:
    hostile = "x'); DROP TABLE t; --"
    scanner = Scanner(FROM_CLIENT)
    scanner.feed(set_config([("app.tenant_id", hostile), ("work_mem", None)], b"s"))
    assert scanner.next() == FRAME
    parse = decode.parse(scanner.data[scanner.start + 5 : scanner.stop])
    assert b"DROP" not in parse.text
    assert parse.text.count(b"pg_catalog.set_config") == 2
    assert scanner.next() == FRAME
    bind = scanner.data[scanner.start : scanner.stop]
    assert hostile.encode() in bind
    assert b"\0\0\0\x08work_mem\xff\xff\xff\xff" in bind


def test_a_value_does_not_depend_on_the_client_encoding() -> None:
    scanner = Scanner(FROM_CLIENT)
    scanner.feed(set_config([("app.tenant_id", "\u00e9"), ("application_name", "\udce9"), ("x", None)], b"s"))
    scanner.next()
    text = decode.parse(scanner.data[scanner.start + 5 : scanner.stop]).text
    assert text == (
        b"SELECT pg_catalog.set_config($1, pg_catalog.convert_from($2::pg_catalog.bytea, 'UTF8'), false), "
        b"pg_catalog.set_config($3, $4, false), pg_catalog.set_config($5, $6, false)"
    )
    scanner.next()
    _, _, at = decode.bind_names(scanner.data[scanner.start + 5 : scanner.stop])
    values, _, _ = decode.bind_values(scanner.data[scanner.start + 5 : scanner.stop], at)
    assert values == [b"app.tenant_id", b"\\xc3a9", b"application_name", b"\xe9", b"x", None]
