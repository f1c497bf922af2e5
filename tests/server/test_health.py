"""Which endpoints are set aside, until when, and why."""

from __future__ import annotations

from proxy.server.health import Health
from tests.transports import endpoint

A, B = endpoint("a"), endpoint("b")


def test_an_endpoint_is_healthy_until_it_is_set_aside_and_again_when_the_time_is_over() -> None:
    health = Health()
    assert health.healthy(A, 0.0)
    health.eject(A, 15.0, "down")
    assert not health.healthy(A, 14.9)
    assert health.healthy(A, 15.0)
    assert health.healthy(B, 0.0)


def test_the_reason_stays_until_it_is_reached_again() -> None:
    health = Health()
    assert health.reason(A) == ""
    health.eject(A, 15.0, "down")
    assert health.reason(A) == "down"
    health.restore(A)
    assert health.reason(A) == ""
    assert health.healthy(A, 0.0)
    health.restore(B)


def test_set_aside_again_it_waits_from_then() -> None:
    health = Health()
    health.eject(A, 15.0, "down")
    health.eject(A, 30.0, "still down")
    assert not health.healthy(A, 20.0)
    assert health.reason(A) == "still down"


def test_those_set_aside_now_are_listed() -> None:
    health = Health()
    health.eject(A, 15.0, "down")
    health.eject(B, 30.0, "down")
    assert health.ejected(20.0) == [B]
