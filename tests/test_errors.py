"""The tree of errors: every one answers the four questions, with the codes that are settled."""

from __future__ import annotations

import re

import pytest

from proxy import errors
from proxy.errors import ConfigError, Fault, ServerRefused, TiergateError


def descendants(kind: type[TiergateError]) -> list[type[TiergateError]]:
    return [kind, *(found for child in kind.__subclasses__() for found in descendants(child))]


ALL = [kind for kind in descendants(TiergateError) if kind.__module__ == "proxy.errors"]


@pytest.mark.parametrize("kind", ALL)
def test_every_error_answers_the_four_questions(kind: type[TiergateError]) -> None:
    assert isinstance(kind.fault, Fault)
    assert re.fullmatch(r"[0-9A-Z]{5}", kind.sqlstate)
    assert kind.level in ("debug", "info", "warning", "error")
    error = kind("said", "57P01", b"E") if issubclass(kind, ServerRefused) else kind("said")
    assert error.message == "said" == str(error)


@pytest.mark.parametrize(
    ("kind", "sqlstate"),
    [
        (errors.UnknownTenant, "3D000"),
        (errors.InvalidPassword, "28P01"),
        (errors.NotAuthorized, "28000"),
        (errors.TenantChangeRefused, "42501"),
        (errors.TenantChangeInTransaction, "25001"),
        (errors.FeatureNotSupported, "0A000"),
        (errors.ProtocolViolation, "08P01"),
        (errors.QueryCanceled, "57014"),
        (errors.CapReached, "53300"),
        (errors.RateExceeded, "53400"),
        (errors.NoHealthyEndpoint, "57P03"),
        (errors.ServerLost, "08006"),
        (errors.ShuttingDown, "57P01"),
    ],
)
def test_settled_codes(kind: type[TiergateError], sqlstate: str) -> None:
    assert kind.sqlstate == sqlstate


def test_whoever_says_nothing_is_a_bug_and_tells_nothing() -> None:
    error = TiergateError(internal="a secret")
    assert (error.fault, error.sqlstate, error.message) == (Fault.BUG, "XX000", "internal error")
    assert "secret" not in str(error)


def test_the_servers_own_words_are_kept_as_they_came() -> None:
    error = ServerRefused("no", "3D000", b"E\0\0\0\5\0")
    assert (error.sqlstate, error.frame, error.fault) == ("3D000", b"E\0\0\0\5\0", Fault.SERVER)
    assert ServerRefused.sqlstate != "3D000"


def test_a_configuration_error_has_a_problem_a_line() -> None:
    assert ConfigError("one\ntwo").problems == ("one", "two")
