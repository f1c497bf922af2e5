"""Tokens of the HTTP API and where its server may listen: what is accepted, and what is said of the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proxy.auth import token
from proxy.model import ApiRole, ApiToken
from tests.settings.parsing import bad, good

if TYPE_CHECKING:
    from tests.integration.servers import Certificates

HASH, OTHER = token.hashed("one"), token.hashed("other")


def table(name: str = "ops", **keys: str) -> str:
    said = {"hash": HASH, "role": "viewer", **keys}
    return f"[api_token.{name}]\n" + "".join(f'{key} = "{value}"\n' for key, value in said.items() if value)


def test_tokens() -> None:
    text = table() + table("acme", hash=OTHER, role="tenant-admin", tenant="acme")
    assert good(text).api_tokens == {
        "ops": ApiToken("ops", HASH, ApiRole.VIEWER),
        "acme": ApiToken("acme", OTHER, ApiRole.TENANT_ADMIN, "acme"),
    }
    assert good("").api_tokens == {}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (table(hash=""), "[api_token.ops] hash: missing"),
        (table(role=""), "[api_token.ops] role: missing"),
        (table(hash="secret-in-clear"), "[api_token.ops] hash: must be "),
        (table(role="root"), "[api_token.ops] role: must be one of viewer, operator, admin, tenant-admin"),
        (table(role="tenant-admin"), "[api_token.ops] tenant: missing"),
        (table(tenant="acme"), "[api_token.ops] tenant: is only for the role tenant-admin"),
        (table() + table("two"), "[api_token.two] hash: is also that of [api_token.ops]"),
        (table(secret="x"), "[api_token.ops] secret: unknown key"),
        ("api_token = 1", "[api_token]: must be written as"),
    ],
)
def test_what_is_wrong_with_a_token(text: str, problem: str) -> None:
    said = bad(text)
    assert problem in said
    assert "secret-in-clear" not in said


@pytest.mark.parametrize("address", ["127.0.0.1:1", "localhost:1", "[::1]:1", "127.8.8.8", ""])
def test_loopback_is_for_all(address: str) -> None:
    assert good(f'[proxy]\nhttp_addr = "{address}"').process.http_addr == address


@pytest.mark.parametrize("address", ["0.0.0.0:1", "*:1", "10.0.0.1:1", "[::]:1", "proxy.internal:1"])
def test_elsewhere_only_with_tls_or_on_purpose(address: str, certificates: Certificates) -> None:
    text = f'[proxy]\nhttp_addr = "{address}"\n'
    assert "can be reached from elsewhere" in bad(text)
    assert good(text + "http_insecure = true").process.http_insecure
    files = (
        f'http_tls_cert_file = "{certificates.server_cert}"\nhttp_tls_key_file = "{certificates.server_key}"'
    )
    assert good(text + files).process.http_tls_key_file == certificates.server_key


def test_a_certificate_and_its_key_go_together(certificates: Certificates) -> None:
    cert = f'[proxy]\nhttp_tls_cert_file = "{certificates.server_cert}"\n'
    assert "http_tls_key_file: missing; http_tls_cert_file needs it" in bad(cert)
    assert "is not there or cannot be read" in bad(cert + 'http_tls_key_file = "nowhere.key"')
