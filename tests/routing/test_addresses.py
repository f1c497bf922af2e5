"""host[:port]: every form that people write, and back from what an Endpoint prints."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.model import Endpoint, Role
from proxy.routing.addresses import parse

LABELS = st.from_regex(r"[a-z0-9_]([a-z0-9_-]{0,10}[a-z0-9_])?", fullmatch=True)
HOSTS = st.one_of(
    st.lists(LABELS, min_size=1, max_size=4).map(".".join),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
    st.lists(LABELS, min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts)),
)


@given(HOSTS, st.integers(1, 65535))
def test_what_an_endpoint_prints_is_read_back(host: str, port: int) -> None:
    assert parse(str(Endpoint(host, port, Role.PRIMARY))) == (host, port)


@given(HOSTS, st.integers(1, 65535))
def test_a_host_alone_has_the_default_port(host: str, port: int) -> None:
    assert parse(host, port) == (host, port)


@given(st.ip_addresses(v=6))
def test_brackets_around_ipv6_are_no_part_of_the_host(address: ipaddress.IPv6Address) -> None:
    assert parse(f"[{address}]") == (str(address), 5432)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pg1", ("pg1", 5432)),
        (" pg1:6000 ", ("pg1", 6000)),
        ("::1", ("::1", 5432)),
        ("[fe80::1%eth0]:7", ("fe80::1%eth0", 7)),
        ("/run/postgresql", ("/run/postgresql", 5432)),
        ("/run/postgresql:5433", ("/run/postgresql", 5433)),
        ("/run/odd:name", ("/run/odd:name", 5432)),
        ("pg1:65535", ("pg1", 65535)),
    ],
)
def test_forms(text: str, expected: tuple[str, int]) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", " ", ":5432", "pg1:", "pg1:x", "pg1:0", "pg1:65536", "pg1:-1", "pg 1", "[::1", "[pg1]:5",
        "[::1]x", "[::1]:", "a,b", "http://pg1", "pg1:٣",
    ],
)  # fmt: skip
def test_not_an_address(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        parse(text)
