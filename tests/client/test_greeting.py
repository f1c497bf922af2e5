"""What a TLS client has said of itself before anybody knows it."""

from __future__ import annotations

from typing import Any, cast

import pytest

from proxy.client.greeting import Greeting
from proxy.wire.startup import Startup


class Tls:
    def __init__(self, certificate: dict[str, Any] | None) -> None:
        self._certificate = certificate

    def getpeercert(self) -> dict[str, Any] | None:
        return self._certificate


def greeting(tls: Tls | None) -> Greeting:
    return Greeting(cast(Startup, None), cast(Any, tls))


def test_the_common_name_of_the_certificate() -> None:
    subject = ((("countryName", "NL"),), (("organizationName", "x"), ("commonName", "carded")))
    assert greeting(Tls({"subject": subject})).certificate_name == "carded"


@pytest.mark.parametrize("tls", [None, Tls(None), Tls({}), Tls({"subject": ((("countryName", "NL"),),)})])
def test_no_certificate_or_one_without_a_name(tls: Tls | None) -> None:
    assert greeting(tls).certificate_name == ""


def test_without_tls_no_host_was_asked_for() -> None:
    assert greeting(None).server_name == ""
    assert greeting(None).binding == b""
