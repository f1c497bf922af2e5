"""What auth_query answers, read: who it is asked on real servers in tests/integration/test_auth_query.py."""

from __future__ import annotations

import pytest

from proxy.registry.roles import StoredRole
from proxy.registry.sources import SourceDown
from proxy.server.roles import _role


@pytest.mark.parametrize(
    ("row", "role"),
    [
        (("anna", "secret"), StoredRole("secret")),
        (("anna", "secret", None), StoredRole("secret")),
        (("anna", "secret", "infinity"), StoredRole("secret", float("inf"))),
        (("anna", "secret", "-infinity"), StoredRole("secret", float("-inf"))),
        (("anna", "secret", "1970-01-02 00:00:00+00"), StoredRole("secret", 86400.0)),
        (("anna", "secret", "1970-01-02 00:00:00.5"), StoredRole("secret", 86400.5)),
        (("anna", "secret", "0044-03-15 00:00:00+00 BC"), StoredRole("secret", float("-inf"))),
        (("anna", "secret", "86400"), StoredRole("secret", 86400.0)),
        (("anna", None), None),
        (("anna", "", "infinity"), None),
        (("anna",), None),
    ],
)
def test_a_row(row: tuple[str | None, ...], role: StoredRole | None) -> None:
    assert _role(row) == role


def test_a_time_that_is_none() -> None:
    with pytest.raises(SourceDown):
        _role(("anna", "secret", "tomorrow"))
