"""TLS contexts: what each sslmode asks of the other side, what they refuse to speak, and the name asked for."""

from __future__ import annotations

import gc
import hashlib
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization

from proxy.errors import ConfigError
from proxy.model import TlsOptions
from proxy.net import tls
from proxy.net.tls import ALPN, ClientTls, client_tls, server_name, server_tls

if TYPE_CHECKING:
    from tests.integration.servers import Certificates


def handshake(
    server: ssl.SSLContext, client: ssl.SSLContext, name: str | None = None
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Both ends after a handshake in memory, with one byte passed each way, so that both have heard of a refusal."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server, server_hostname=name)
    done: set[ssl.SSLObject] = set()
    for _ in range(10):
        for end in (theirs, ours):
            try:
                end.do_handshake()
                done.add(end)
            except ssl.SSLWantReadError:
                pass
        if len(done) == 2:
            break
    assert len(done) == 2
    for sender, receiver in ((ours, theirs), (theirs, ours)):
        sender.write(b"x")
        assert receiver.read(1) == b"x"
    return ours, theirs


def for_clients(certificates: Certificates, sslmode: str = "require", **more: str) -> ClientTls:
    made = client_tls(
        TlsOptions(sslmode, cert_file=certificates.server_cert, key_file=certificates.server_key, **more)
    )
    assert made is not None
    return made


def a_client(certificates: Certificates, which: str = "") -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=certificates.ca)
    if which:
        context.load_cert_chain(getattr(certificates, f"{which}_cert"), getattr(certificates, f"{which}_key"))
    return context


# --- towards clients --------------------------------------------------------------------------------


def test_disable_is_no_tls() -> None:
    assert client_tls(TlsOptions("disable")) is None
    assert server_tls(TlsOptions("disable")).context is None


@pytest.mark.parametrize(
    ("sslmode", "required"),
    [("allow", False), ("prefer", False), ("require", True), ("verify-ca", True), ("verify-full", True)],
)
def test_which_sslmodes_require_tls(certificates: Certificates, sslmode: str, required: bool) -> None:
    assert for_clients(certificates, sslmode, ca_file=certificates.ca).required is required
    ours = server_tls(TlsOptions(sslmode, ca_file=certificates.ca))
    assert (ours.required, ours.first) == (required, sslmode != "allow")


@pytest.mark.parametrize("sslmode", ["allow", "prefer", "require"])
@pytest.mark.parametrize("which", ["", "client"])
def test_a_client_certificate_is_welcome_but_not_wanted(
    certificates: Certificates, sslmode: str, which: str
) -> None:
    ours, _ = handshake(
        for_clients(certificates, sslmode, ca_file=certificates.ca).context,
        a_client(certificates, which),
        "localhost",
    )
    assert bool(ours.getpeercert()) == bool(which)


@pytest.mark.parametrize("sslmode", ["allow", "prefer", "require", "verify-ca", "verify-full"])
def test_a_strangers_certificate_is_refused(certificates: Certificates, sslmode: str) -> None:
    """Also where none is needed: nobody is to be believed who shows a bad one."""
    context = for_clients(certificates, sslmode, ca_file=certificates.ca).context
    with pytest.raises(ssl.SSLError):
        handshake(context, a_client(certificates, "stranger"), "localhost")


@pytest.mark.parametrize("sslmode", ["verify-ca", "verify-full"])
def test_a_client_certificate_is_wanted(certificates: Certificates, sslmode: str) -> None:
    context = for_clients(certificates, sslmode, ca_file=certificates.ca).context
    with pytest.raises(ssl.SSLError):
        handshake(context, a_client(certificates), "localhost")
    ours, _ = handshake(context, a_client(certificates, "client"), "localhost")
    assert ours.getpeercert()


def test_without_an_authority_no_client_certificate_is_believed(certificates: Certificates) -> None:
    context = for_clients(certificates).context
    ours, _ = handshake(context, a_client(certificates, "stranger"), "localhost")
    assert not ours.getpeercert()


def test_old_versions_are_not_spoken(certificates: Certificates) -> None:
    for context in (for_clients(certificates).context, server_tls(TlsOptions("require")).context):
        assert context is not None
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    newest = for_clients(certificates, protocols=["tlsv1.3"])  # type: ignore[arg-type]
    old = a_client(certificates)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        handshake(newest.context, old, "localhost")
    ours, _ = handshake(newest.context, a_client(certificates), "localhost")
    assert ours.version() == "TLSv1.3"
    only_old = for_clients(certificates, protocols=["TLSv1.2"])  # type: ignore[arg-type]
    ours, _ = handshake(only_old.context, a_client(certificates), "localhost")
    assert ours.version() == "TLSv1.2"


def test_the_protocol_is_named(certificates: Certificates) -> None:
    towards_servers = server_tls(TlsOptions("require")).context
    assert towards_servers is not None
    ours, theirs = handshake(for_clients(certificates).context, towards_servers)
    assert ours.selected_alpn_protocol() == theirs.selected_alpn_protocol() == ALPN
    ours, _ = handshake(for_clients(certificates).context, a_client(certificates), "localhost")
    assert ours.selected_alpn_protocol() is None


def test_no_session_is_resumed(certificates: Certificates) -> None:
    client = a_client(certificates)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    _, theirs = handshake(for_clients(certificates).context, client, "localhost")
    assert theirs.session is None or not theirs.session.has_ticket


def test_the_name_that_was_asked_for(certificates: Certificates) -> None:
    context = for_clients(certificates).context
    ours, theirs = handshake(context, a_client(certificates), "acme.tiergate.test")
    assert server_name(ours) == "acme.tiergate.test"
    other, theirs_too = handshake(context, a_client(certificates), "localhost")
    assert (server_name(other), server_name(ours)) == ("localhost", "acme.tiergate.test")
    assert server_name(None) == ""
    del ours, other, theirs, theirs_too
    gc.collect()
    assert not list(tls._asked.values())


def test_a_client_that_asks_for_no_name(certificates: Certificates) -> None:
    nameless = a_client(certificates)
    nameless.check_hostname = False
    ours, _ = handshake(for_clients(certificates).context, nameless)
    assert server_name(ours) == ""


def test_the_binding_is_of_the_certificate_that_clients_see(
    certificates: Certificates, tmp_path: Path
) -> None:
    made = for_clients(certificates)
    _, theirs = handshake(made.context, a_client(certificates), "localhost")
    assert made.binding == hashlib.sha256(theirs.getpeercert(binary_form=True) or b"").digest()
    # A file that begins with the key and ends with the authority has its own certificate in between.
    all_in_one = tmp_path / "all.pem"
    parts = (certificates.server_key, certificates.server_cert, certificates.ca)
    all_in_one.write_text("".join(Path(part).read_text() for part in parts))
    again = client_tls(TlsOptions("require", cert_file=str(all_in_one)))
    assert again is not None
    assert again.binding == made.binding


# --- towards servers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sslmode", "authority", "name", "accepted"),
    [
        ("prefer", "stranger_ca", "elsewhere", True),
        ("require", "stranger_ca", "elsewhere", True),
        ("verify-ca", "ca", "elsewhere", True),
        ("verify-ca", "stranger_ca", "localhost", False),
        ("verify-full", "ca", "localhost", True),
        ("verify-full", "ca", "127.0.0.1", True),
        ("verify-full", "ca", "elsewhere", False),
        ("verify-full", "ca", "127.0.0.2", False),
        ("verify-full", "stranger_ca", "localhost", False),
    ],
)
def test_which_servers_are_believed(
    certificates: Certificates, sslmode: str, authority: str, name: str, accepted: bool
) -> None:
    context = server_tls(TlsOptions(sslmode, ca_file=getattr(certificates, authority))).context
    assert context is not None
    server = for_clients(certificates).context
    if accepted:
        handshake(server, context, name)
    else:
        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(server, context, name)


def test_a_server_is_shown_our_certificate(certificates: Certificates) -> None:
    ours = server_tls(
        TlsOptions("require", cert_file=certificates.client_cert, key_file=certificates.client_key)
    )
    assert ours.context is not None
    server, _ = handshake(
        for_clients(certificates, "verify-ca", ca_file=certificates.ca).context, ours.context, "localhost"
    )
    assert server.getpeercert()


# --- what cannot be used ----------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["cert_file", "key_file", "ca_file"])
def test_a_file_that_is_missing_or_no_pem_is_named(
    certificates: Certificates, tmp_path: Path, missing: str
) -> None:
    files = {
        "cert_file": certificates.server_cert,
        "key_file": certificates.server_key,
        "ca_file": certificates.ca,
    }
    nowhere = str(tmp_path / "no.pem")
    with pytest.raises(ConfigError, match=r"TLS files cannot be used: .*no\.pem.*No such file") as caught:
        client_tls(TlsOptions("require", **(files | {missing: nowhere})))
    assert nowhere in caught.value.message
    Path(nowhere).write_text("no certificate")
    with pytest.raises(ConfigError, match=r"TLS files cannot be used: .*no\.pem"):
        client_tls(TlsOptions("require", **(files | {missing: nowhere})))


def test_a_key_of_another_certificate(certificates: Certificates) -> None:
    with pytest.raises(ConfigError, match=r"TLS files cannot be used: .*KEY_VALUES_MISMATCH"):
        client_tls(
            TlsOptions("require", cert_file=certificates.server_cert, key_file=certificates.client_key)
        )


def test_an_encrypted_key_is_refused_and_nobody_is_asked(certificates: Certificates, tmp_path: Path) -> None:
    key = serialization.load_pem_private_key(Path(certificates.server_key).read_bytes(), None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(ConfigError, match="the private key is encrypted"):
        client_tls(TlsOptions("require", cert_file=certificates.server_cert, key_file=str(locked)))


def test_ciphers(certificates: Certificates) -> None:
    made = for_clients(certificates, ciphers="ECDHE-ECDSA-AES256-GCM-SHA384")
    names = [cipher["name"] for cipher in made.context.get_ciphers() if cipher["protocol"] != "TLSv1.3"]
    assert names == ["ECDHE-ECDSA-AES256-GCM-SHA384"]
    assert len(for_clients(certificates, ciphers="default").context.get_ciphers()) > 3
    with pytest.raises(ConfigError, match="TLS files cannot be used: ciphers"):
        for_clients(certificates, ciphers="no-such-cipher")


def test_keys_are_never_negotiated_anew(certificates: Certificates) -> None:
    assert for_clients(certificates).context.options & ssl.OP_NO_RENEGOTIATION
    context = server_tls(TlsOptions("require")).context
    assert context is not None
    assert context.options & ssl.OP_NO_RENEGOTIATION
