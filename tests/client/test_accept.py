"""The first packets of a client: TLS in every way to ask for it, cancels, floods, garbage and silence."""

from __future__ import annotations

import socket
import ssl
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from proxy.model import ClientOptions, TlsOptions
from proxy.net.tls import ClientTls, client_tls
from proxy.wire.startup import CancelRequest
from tests.client.gate import OPTIONS, Gate, gate
from tests.integration.servers import DEBIAN, Certificates
from tests.rawclient import (
    GSSENC_REQUEST,
    SSL_REQUEST,
    V3_2,
    Closed,
    RawClient,
    ServerError,
    cancel_request,
    errors,
    startup,
)

TRUSTED = startup({"user": "trusted@acme", "database": "db"})
SSLMODES = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]


def server_tls(sslmode: str, certificates: Certificates, *, ca: bool = False) -> ClientTls | None:
    return client_tls(
        TlsOptions(
            sslmode,
            cert_file=certificates.server_cert,
            key_file=certificates.server_key,
            ca_file=certificates.ca if ca or sslmode.startswith("verify") else "",
        )
    )


def context(certificates: Certificates, *, alpn: str = "", own: bool = False) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=certificates.ca)
    if alpn:
        made.set_alpn_protocols([alpn])
    if own:
        made.load_cert_chain(certificates.client_cert, certificates.client_key)
    return made


@pytest.fixture(scope="module")
def plain() -> Iterator[Gate]:
    with gate() as door:
        yield door


@pytest.fixture(scope="module")
def tls(certificates: Certificates) -> Iterator[Gate]:
    """Takes TLS and plain text, and knows the authority of clients' certificates."""
    with gate(OPTIONS, server_tls("prefer", certificates, ca=True)) as door:
        yield door


def closed_without_a_word(client: RawClient) -> None:
    with pytest.raises(Closed):
        client.read_exactly(1)


def said(client: RawClient) -> str:
    """The SQLSTATE of the error that comes before the end."""
    with pytest.raises(ServerError) as caught:
        client.authenticate("trusted", "")
    assert caught.value.fields["S"] == "FATAL"
    assert client.read_to_eof() == []
    return caught.value.fields["C"]


# --- TLS ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sslmode", SSLMODES)
def test_every_sslmode(certificates: Certificates, sslmode: str) -> None:
    with gate(OPTIONS, server_tls(sslmode, certificates)) as door:
        client = door.client()
        if sslmode == "disable":
            client.send(SSL_REQUEST)
            assert client.read_exactly(1) == b"N"
        else:
            client.start_tls(context(certificates, own=True), "localhost")
        client.log_in("trusted@acme")
        assert door.logins.pop().tls == (sslmode != "disable")
        client = door.client()
        client.send(TRUSTED)
        if sslmode in ("require", "verify-ca", "verify-full"):
            with pytest.raises(ServerError, match="SSL required") as caught:
                client.authenticate("trusted", "")
            assert caught.value.fields["C"] == "28000"
            assert not door.logins
        else:
            client.authenticate("trusted", "")
            assert not door.logins.pop().tls


def test_direct_tls_with_alpn(tls: Gate, certificates: Certificates) -> None:
    client = tls.client()
    client.start_tls(context(certificates, alpn="postgresql"), "localhost", direct=True)
    assert isinstance(client.sock, ssl.SSLSocket)
    assert client.sock.selected_alpn_protocol() == "postgresql"
    client.log_in("trusted@acme")
    assert tls.logins.pop().tls


@pytest.mark.parametrize("alpn", ["", "h2", "postgres"])
def test_direct_tls_without_alpn_is_hung_up_on(tls: Gate, certificates: Certificates, alpn: str) -> None:
    client = tls.client()
    try:
        client.start_tls(context(certificates, alpn=alpn), "localhost", direct=True)
        client.send(TRUSTED)
        closed_without_a_word(client)
    except (ssl.SSLError, OSError):
        pass  # in the handshake already
    assert not tls.logins


def test_direct_tls_where_tls_is_disabled(plain: Gate, certificates: Certificates) -> None:
    client = plain.client()
    with pytest.raises(OSError):  # noqa: PT011 - reset or EOF, as it happens
        client.start_tls(context(certificates, alpn="postgresql"), "localhost", direct=True)
    assert not plain.logins


def test_bytes_behind_ssl_request_are_not_taken_for_what_came_under_tls(
    tls: Gate, certificates: Certificates
) -> None:
    """CVE-2021-23214: somebody in the middle puts a startup packet, or a query, before the handshake."""
    for stuffed in (TRUSTED, b"\0", SSL_REQUEST):
        client = tls.client()
        client.send(SSL_REQUEST + stuffed)
        assert client.read_exactly(1) == b"S"
        with pytest.raises(OSError):  # noqa: PT011 - alert, reset or EOF, as it happens
            client.sock = context(certificates).wrap_socket(client.sock, server_hostname="localhost")
        client.hang_up()
    tls.nobody_pending()
    assert not tls.logins


def test_bytes_behind_a_refused_request_are_a_startup_packet(plain: Gate) -> None:
    client = plain.client()
    client.send(GSSENC_REQUEST + SSL_REQUEST + TRUSTED)
    assert client.read_exactly(2) == b"NN"
    client.authenticate("trusted", "")
    assert not plain.logins.pop().tls


def test_gss_encryption_is_refused_politely(tls: Gate, certificates: Certificates) -> None:
    client = tls.client()
    client.send(GSSENC_REQUEST)
    assert client.read_exactly(1) == b"N"
    client.start_tls(context(certificates), "localhost")
    client.log_in("trusted@acme")
    assert tls.logins.pop().tls
    client = tls.client()
    client.send(GSSENC_REQUEST)
    assert client.read_exactly(1) == b"N"
    client.log_in("trusted@acme")
    assert not tls.logins.pop().tls


def test_encryption_is_asked_for_once(tls: Gate, plain: Gate, certificates: Certificates) -> None:
    for request in (GSSENC_REQUEST, SSL_REQUEST):
        client = plain.client()
        client.send(request + request)
        assert client.read_exactly(1) == b"N"
        assert said(client) == "08P01"
        client = tls.client()
        client.start_tls(context(certificates), "localhost")
        client.send(request)
        assert said(client) == "08P01"


def test_a_handshake_that_fails_gets_no_plain_text(tls: Gate) -> None:
    for garbage in (b"hello world, this is no TLS at all", b"\x16\x03\x01\0\x05abcde"):
        client = tls.client()
        client.send(SSL_REQUEST)
        assert client.read_exactly(1) == b"S"
        client.send(garbage)
        rest = b""
        while chunk := _receive(client.sock):
            rest += chunk
        assert b"FATAL" not in rest
        assert rest[:1] in (b"", b"\x15")  # nothing, or a TLS alert
    tls.nobody_pending()


def _receive(sock: socket.socket) -> bytes:
    try:
        return sock.recv(1000)
    except ConnectionResetError:
        return b""


def test_the_name_of_the_host_may_name_the_tenant(tls: Gate, certificates: Certificates) -> None:
    for name, tenant in (("acme.tiergate.test", "acme"), ("beta.tiergate.test", "beta")):
        client = tls.client()
        client.start_tls(context(certificates), name)
        client.log_in("trusted", "db")
        login = tls.logins.pop()
        assert login.tenant is not None
        assert login.tenant.name == tenant
    client = tls.client()
    client.start_tls(context(certificates), "acme.tiergate.test")
    client.send(startup({"user": "trusted@beta"}))
    assert client.read().kind == "R"
    assert said(client) == "28000"
    assert not tls.logins


def test_certificates_of_clients(certificates: Certificates) -> None:
    """The certificate says "app": it opens app's door and no other's."""
    options = replace(OPTIONS, auth_type="cert")
    users = {"app": ""}
    with gate(options, server_tls("verify-full", certificates)) as door:
        for user in ("app", "bound"):
            client = door.client()
            client.start_tls(context(certificates, own=True), "localhost")
            if user in users:
                client.log_in(f"{user}@acme")
                assert door.logins.pop().user.name == "app"
                continue
            client.send(startup({"user": user}))
            assert said(client) == "28000"
        stranger = context(certificates)
        stranger.load_cert_chain(certificates.stranger_cert, certificates.stranger_key)
        for shown in (context(certificates), stranger):
            client = door.client()
            with pytest.raises((OSError, Closed)):
                _introduce(client, shown)
        assert not door.logins


def _introduce(client: RawClient, shown: ssl.SSLContext) -> None:
    client.start_tls(shown, "localhost")
    client.send(startup({"user": "app@acme"}))
    client.read()


def test_without_a_certificate_nobody_is_let_in_by_one(
    tls: Gate, plain: Gate, certificates: Certificates
) -> None:
    client = tls.client()
    client.start_tls(context(certificates), "localhost")
    client.send(startup({"user": "carded@acme"}))
    assert said(client) == "28000"
    client = plain.client()
    client.send(startup({"user": "carded@acme"}))
    assert said(client) == "28000"


# --- real clients -------------------------------------------------------------------------------------


def connect(door: Gate, certificates: Certificates, **more: Any) -> str:
    with psycopg.connect(
        host="localhost", hostaddr="127.0.0.1", port=door.port, user="app@acme", password="app-secret", dbname="db",
        sslrootcert=certificates.ca, connect_timeout=10, autocommit=True, **more,
    ) as connection:  # fmt: skip
        answer = connection.pgconn.exec_(b"who").get_value(0, 0)
    assert answer is not None
    return str(answer.decode())


@pytest.mark.parametrize("sslmode", ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"])
def test_libpq_in_every_sslmode(tls: Gate, certificates: Certificates, sslmode: str) -> None:
    expected = "plain" if sslmode in ("disable", "allow") else "tls"
    assert connect(tls, certificates, sslmode=sslmode) == f"app {expected}"
    tls.logins.clear()


def test_libpq_binds_its_proof_to_the_certificate(tls: Gate, certificates: Certificates) -> None:
    assert connect(tls, certificates, sslmode="require", channel_binding="require") == "app tls"
    tls.logins.clear()


def test_libpq_with_direct_tls(tls: Gate, certificates: Certificates) -> None:
    if psycopg.pq.version() < 170000:
        pytest.skip("libpq has sslnegotiation since 17")
    assert connect(tls, certificates, sslmode="verify-full", sslnegotiation="direct") == "app tls"
    tls.logins.clear()


@pytest.mark.parametrize(
    ("sslmode", "expected"), [("disable", "plain"), ("prefer", "tls"), ("require", "tls")]
)
def test_psql(tls: Gate, sslmode: str, expected: str, tmp_path: Path) -> None:
    psql = DEBIAN / "psql"
    if not psql.exists():
        pytest.skip(f"no psql in {DEBIAN}")
    done = subprocess.run(
        [str(psql), "-X", "-A", "-t", "-c", "who",
         f"host=127.0.0.1 port={tls.port} user=app@acme dbname=db sslmode={sslmode}"],
        env={"PGPASSWORD": "app-secret", "HOME": str(tmp_path)}, capture_output=True, text=True, timeout=20,
        check=False,
    )  # fmt: skip
    assert done.stdout.strip() == f"app {expected}", done.stderr
    tls.logins.clear()


# --- cancels ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [b"key!", bytes(range(32)), b"k", bytes(256)])
def test_cancels_come_in_every_way(tls: Gate, certificates: Certificates, key: bytes) -> None:
    for way in ("plain", "tls", "direct"):
        client = tls.client()
        if way != "plain":
            client.start_tls(context(certificates, alpn="postgresql"), "localhost", direct=way == "direct")
        client.send(cancel_request(7, key))
        closed_without_a_word(client)
        assert tls.cancels.pop() == CancelRequest(7, key)
    assert not tls.cancels


def test_cancels_that_are_none(plain: Gate) -> None:
    for body in (b"", bytes(257), bytes(9000)):
        client = plain.client()
        client.send(struct.pack("!IIi", 12 + len(body), 80877102, 7) + body)
        assert said(client) == "08P01"
    assert not plain.cancels


# --- garbage ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", bytes(8), b"\xff" * 64, struct.pack("!II", 4, 0x30000),
        struct.pack("!II", 7, 0x30000), struct.pack("!II", 10_001, 0x30000), struct.pack("!II", 0x7FFFFFFF, 0x30000),
        struct.pack("!II", 9, 80877103) + b"x", struct.pack("!II", 12, 80877104) + bytes(4),
    ],
)  # fmt: skip
def test_garbage_is_a_protocol_violation(
    plain: Gate, tls: Gate, garbage: bytes, certificates: Certificates
) -> None:
    client = plain.client()
    client.send(garbage)
    assert said(client) == "08P01"
    client = tls.client()
    client.start_tls(context(certificates), "localhost")
    client.send(garbage)
    assert said(client) == "08P01"


@pytest.mark.parametrize(
    "body", [b"user\0app\0", b"user\0app", b"user\0\xff\xfe\0\0", b"user\0app\0\0more\0", b"", b"x\0"]
)
def test_startup_packets_that_are_none(plain: Gate, body: bytes) -> None:
    client = plain.client()
    client.send(struct.pack("!II", 8 + len(body), 0x30000) + body)
    assert said(client) == "08P01"


def test_the_largest_startup_packet(plain: Gate) -> None:
    room = 10_000 - len(startup({"user": "trusted@acme", "x.y": ""}))
    client = plain.client()
    client.log_in("trusted@acme", parameters={"x.y": "v" * room})
    assert plain.logins.pop().asked.parameters == {"x.y": "v" * room}


def test_packets_cut_at_every_byte(plain: Gate) -> None:
    client = plain.client()
    client.send_in_pieces(bytes([byte]) for byte in GSSENC_REQUEST + SSL_REQUEST + TRUSTED)
    assert client.read_exactly(2) == b"NN"
    client.authenticate("trusted", "")
    assert plain.logins.pop().user.name == "trusted"


# --- floods and silence -------------------------------------------------------------------------------


HASTE = replace(OPTIONS, client_login_timeout=0.3)


@pytest.mark.parametrize("sent", [b"", TRUSTED[:5], TRUSTED[:20], startup({"user": "app"}), GSSENC_REQUEST])
def test_a_login_that_is_never_finished_meets_its_timeout(sent: bytes) -> None:
    with gate(HASTE) as door:
        client = door.client()
        client.send(sent)
        if sent == GSSENC_REQUEST:
            assert client.read_exactly(1) == b"N"
        frames = client.read_to_eof()
        assert frames[-1].kind == "E"
        assert b"C08006\0Mclient_login_timeout\0" in frames[-1].body
        door.nobody_pending()
        assert door.process.login_failures == 1


@pytest.mark.parametrize("stage", ["no handshake", "half a handshake", "no startup"])
def test_a_login_that_is_never_finished_under_tls(certificates: Certificates, stage: str) -> None:
    with gate(HASTE, server_tls("prefer", certificates)) as door:
        client = door.client()
        if stage == "no startup":
            client.start_tls(context(certificates), "localhost")
            frames = client.read_to_eof()
            assert [b"client_login_timeout" in frame.body for frame in frames] == [True]
        else:
            client.send(SSL_REQUEST)
            assert client.read_exactly(1) == b"S"
            if stage == "half a handshake":
                client.send(b"\x16\x03\x01\x02\x00\x01")
            while chunk := _receive(client.sock):
                assert b"FATAL" not in chunk
        door.nobody_pending()


def test_as_many_logins_at_once_as_are_allowed() -> None:
    options = replace(OPTIONS, max_logins=3)
    with gate(options) as door:
        _fill(door, 3)


def _begin(door: Gate, user: str) -> RawClient:
    """A login that has been asked for its password."""
    client = door.client()
    client.send(startup({"user": user}))
    assert client.read().kind == "R"
    return client


def _leave(door: Gate, in_the_end: RawClient, never: RawClient) -> None:
    """One has logged in and one is gone: no place is taken any more."""
    in_the_end.send(b"p\0\0\0\x10open-secret\0")
    in_the_end.read_ready()
    never.reset()
    door.nobody_pending_but(0)
    for _ in range(5):
        door.log_in("trusted@acme")


def test_as_many_logins_from_one_address_as_are_allowed() -> None:
    """And as many that have not said yet who they are."""
    with gate(replace(OPTIONS, max_logins_per_address=2)) as door:
        waiting = [door.client() for _ in range(2)]
        (said,) = errors(door.client().read_to_eof())
        assert (said["C"], said["D"]) == ("53300", "max_logins_per_address is reached.")
        assert door.process.rejected_connections == 1
        for client in waiting:
            client.send(startup({"user": "open@acme"}))
            assert client.read().kind == "R"
        other = door.client()
        other.send(startup({"user": "open@beta"}))
        (said,) = errors(other.read_to_eof())
        assert (said["C"], said["D"]) == ("53300", "max_logins_per_address is 2.")
        _leave(door, *waiting)


def test_a_tenants_storm_of_logins_leaves_room_for_others() -> None:
    with gate(replace(OPTIONS, max_logins_per_tenant=2)) as door:
        waiting = []
        for _ in range(2):
            waiting.append(_begin(door, "open@acme"))
        refused = door.client()
        refused.send(startup({"user": "open@acme"}))
        said = refused.read()
        assert (said.kind, b"C53300\0" in said.body, b"VFATAL\0" in said.body) == ("E", True, True)
        refused.read_to_eof()
        elsewhere = door.client(source="127.0.0.9")
        elsewhere.send(startup({"user": "open@acme"}))
        assert elsewhere.read().kind == "R", "who holds the places of a tenant keeps nobody else from it"
        elsewhere.close()
        door.nobody_pending_but(2)
        door.log_in("trusted@beta")
        door.log_in("trusted@acme")  # holds nobody's place, as nothing is asked of it
        _leave(door, *waiting)


def test_a_tenants_storm_leaves_room_for_others_from_the_same_address() -> None:
    """An application speaks for all of them from there."""
    with gate(replace(OPTIONS, max_logins_per_address=8)) as door:
        for _ in range(6):
            _begin(door, "open@acme")
        refused = door.client()
        refused.send(startup({"user": "open@acme"}))
        (said,) = errors(refused.read_to_eof())
        assert (said["C"], said["M"]) == ("53300", "too many clients of the tenant are logging in")
        assert said["D"] == "max_logins_per_address is 8."
        door.nobody_pending_but(6)
        _begin(door, "open@beta")
        door.log_in("trusted@acme")  # holds nobody's place
        another = door.client()
        another.send(startup({"user": "open@beta"}))
        assert another.read().kind == "R", "who has less than its equal part may have more"


def _fill(door: Gate, limit: int) -> None:
    waiting = []
    for _ in range(limit):
        client = door.client()
        client.send(startup({"user": "open@acme"}))
        assert client.read().kind == "R"
        waiting.append(client)
    assert door.acceptor.pending == limit
    refused = door.client()
    assert b"C53300\0" in refused.read().body
    assert door.process.rejected_connections == 1
    # One that has logged in no longer counts, and neither does one that left.
    waiting[0].send(b"p\0\0\0\x10open-secret\0")
    waiting[0].read_ready()
    waiting[1].reset()
    door.nobody_pending_but(limit - 2)
    for _ in range(5):
        door.log_in("trusted@acme")
    assert door.process.rejected_connections == 1


def test_new_options_hold_for_the_next_client(certificates: Certificates) -> None:
    with gate() as door:
        client = door.client()
        client.send(SSL_REQUEST)
        assert client.read_exactly(1) == b"N"
        options: ClientOptions = replace(OPTIONS, auth_type="plain")
        door.acceptor.reload(options, server_tls("require", certificates))
        other = door.client()
        other.start_tls(context(certificates), "localhost")
        other.log_in("app@acme", "", "app-secret", protocol=V3_2)
        assert other.welcome[0].body == struct.pack("!I", 3)


def test_who_is_known_in_the_clear_is_refused_where_tls_is_required_now(certificates: Certificates) -> None:
    with gate() as door:
        door.log_in("trusted@acme", "", "db")
        door.acceptor.reload(OPTIONS, server_tls("require", certificates))
        client = door.client()
        client.send(TRUSTED)
        assert said(client) == "28000"


def test_a_shorter_timeout_holds_although_a_longer_one_runs() -> None:
    with gate() as door:
        waiting = door.client()
        door.nobody_pending_but(1)
        door.acceptor.reload(HASTE, None)
        client = door.client()
        assert b"client_login_timeout" in client.read_to_eof()[-1].body
        door.nobody_pending_but(1)
        waiting.hang_up()


def test_the_end_of_the_acceptor_ends_the_logins() -> None:
    with gate() as door:
        clients = [door.client() for _ in range(3)]
        for number, client in enumerate(clients):
            client.send((b"", TRUSTED[:9], startup({"user": "app"}))[number])
        assert clients[2].read().kind == "R"
        door.run(door.acceptor.close())
        for client in clients:
            closed_without_a_word(client)


def test_a_login_that_was_ended_before_its_first_step_is_forgotten() -> None:
    with gate() as door:
        ours, theirs = socket.socketpair()
        theirs.settimeout(5)
        tcp = socket.create_connection((door.host, door.port))
        door.nobody_pending_but(1)

        async def accept_and_close() -> int:
            ours.setblocking(False)
            door.acceptor.accept(ours.detach(), "", 0)
            pending = door.acceptor.pending
            await door.acceptor.close()
            return pending

        assert door.run(accept_and_close()) == 2
        assert ours.fileno() < 0
        assert theirs.recv(1) == b""
        theirs.close()
        tcp.close()
