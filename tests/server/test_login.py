"""Logging in to servers: PostgreSQL with every way to ask for a password, with TLS, and fakes that misbehave."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from proxy.auth import scram
from proxy.auth.to_server import NoPassword
from proxy.cli.embedded import EmbeddedServer
from proxy.errors import ServerError, ServerLost, ServerProtocolError, ServerRefused
from proxy.model import NO_PARAMETERS, Endpoint, Role, ServerOptions, TcpOptions, TlsOptions
from proxy.net.tls import ServerTls, server_tls
from proxy.server.login import ServerLogin, connect, open_socket
from proxy.wire import encode
from tests.integration.servers import Certificates, DebianServer, Server
from tests.server.fakes import (
    SSL_REQUEST,
    Handler,
    message,
    packet,
    reset,
    run,
    saying,
    serving,
    silent_port,
)

PLAIN = server_tls(TlsOptions("disable"))
OPTIONS = ServerOptions(server_connect_timeout=10, server_login_timeout=10)
AUTH_OK = encode.AUTHENTICATION_OK
KEY = encode.backend_key_data(7, b"key!")
READY = encode.ready_for_query()


def of(server: Server) -> Endpoint:
    return Endpoint(server.host, server.port, Role.PRIMARY)


async def log_in(
    endpoint: Endpoint,
    user: str = "app",
    password: str = "app-secret",
    database: str = "appdb",
    *,
    tls: ServerTls = PLAIN,
    options: ServerOptions = OPTIONS,
    parameters: Mapping[str, str] = NO_PARAMETERS,
) -> ServerLogin:
    return await connect(
        endpoint,
        database=database,
        user=user,
        password=password,
        options=options,
        tls=tls,
        parameters=parameters,
    )


async def values(login: ServerLogin, text: str) -> list[str]:
    """The first row of a query, and the end of the connection."""
    login.stream.write(encode.query(text.encode()))
    found: list[str] = []
    while True:
        kind, body = await login.stream.read_message()
        if kind == ord("D"):
            at = 2
            for _ in range(int.from_bytes(body[:2], "big")):
                length = int.from_bytes(body[at : at + 4], "big")
                found.append(body[at + 4 : at + 4 + length].decode())
                at += 4 + length
        elif kind == ord("E"):
            raise AssertionError(body)
        elif kind == ord("Z"):
            login.stream.transport.abort()
            return found


# --- PostgreSQL -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("user", "password"),
    [("app", "app-secret"), ("old", "old-secret"), ("other", "other-secret"), ("postgres", "")],
    ids=["scram-sha-256", "md5", "cleartext", "trust"],
)
def test_every_way_to_ask_for_a_password(dedicated: EmbeddedServer, user: str, password: str) -> None:
    async def main() -> None:
        login = await log_in(of(dedicated), user, password)
        assert login.parameters["server_version"].startswith("18")
        assert login.parameters["client_encoding"] == "UTF8"
        assert len(login.key) == 4
        assert await values(login, "SELECT current_user, pg_backend_pid()") == [user, str(login.pid)]

    run(main())


@pytest.mark.parametrize(
    ("user", "database", "parameters", "sqlstate"),
    [
        ("app", "appdb", {}, "28P01"),
        ("old", "appdb", {}, "28P01"),
        ("other", "appdb", {}, "28P01"),
        ("nobody", "appdb", {}, "28P01"),
        ("postgres", "nowhere", {}, "3D000"),
        ("postgres", "appdb", {"work_mem": "x"}, "22023"),
        ("postgres", "appdb", {"no_such_thing": "x"}, "42704"),
        ("postgres", "appdb", {"client_encoding": "KLINGON"}, "22023"),
    ],
)
def test_a_refusal_is_the_servers_own(
    dedicated: EmbeddedServer, user: str, database: str, parameters: dict[str, str], sqlstate: str
) -> None:
    async def main() -> ServerRefused:
        with pytest.raises(ServerRefused) as caught:
            await log_in(of(dedicated), user, "wrong", database, parameters=parameters)
        return caught.value

    error = run(main())
    assert error.sqlstate == sqlstate
    assert error.frame.startswith(b"E")
    assert b"SFATAL\0" in error.frame
    assert len(error.frame) == 1 + int.from_bytes(error.frame[1:5], "big")
    assert error.message.encode() in error.frame


def test_a_server_that_wants_a_password_and_none_is_configured(dedicated: EmbeddedServer) -> None:
    async def main() -> None:
        for password in ("", "SCRAM-SHA-256$4096:AAAA$BBBB:CCCC"):
            for user in ("app", "old", "other"):
                with pytest.raises(NoPassword, match="no password for the server"):
                    await log_in(of(dedicated), user, password)

    run(main())


def test_parameters_are_taken_and_reported(dedicated: EmbeddedServer) -> None:
    async def main() -> None:
        said = {
            "TimeZone": "Asia/Tokyo",
            "client_encoding": "LATIN1",
            "application_name": "Zürich",
            "search_path": '"$user", b',
            "app.tenant_id": "acme",
        }
        login = await log_in(of(dedicated), "postgres", parameters=said)
        assert login.parameters["TimeZone"] == "Asia/Tokyo"
        assert login.parameters["client_encoding"] == "LATIN1"
        asked = "SELECT current_setting('search_path'), current_setting('app.tenant_id')"
        assert await values(login, asked) == ['"$user", b', "acme"]

    run(main())


def test_a_unix_socket(dedicated: EmbeddedServer) -> None:
    async def main() -> None:
        endpoint = Endpoint(str(dedicated.socket_dir), dedicated.port, Role.PRIMARY)
        login = await log_in(endpoint, "postgres", tls=server_tls(TlsOptions("require")))
        assert await values(login, "SELECT coalesce(inet_client_addr()::text, 'local')") == ["local"]
        with pytest.raises(ServerLost):
            await log_in(Endpoint(str(dedicated.socket_dir), 1, Role.PRIMARY))

    run(main())


# --- PostgreSQL with TLS ----------------------------------------------------------------------------

WITH_TLS = "SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


@pytest.mark.parametrize("sslmode", ["allow", "prefer", "require", "verify-ca", "verify-full"])
def test_tls_in_every_sslmode(tls_server: DebianServer, certificates: Certificates, sslmode: str) -> None:
    """The server takes this user with TLS only; "allow" comes with plain text first and is refused."""

    async def main() -> None:
        tls = server_tls(TlsOptions(sslmode, ca_file=certificates.ca))
        login = await log_in(of(tls_server), tls=tls)
        assert await values(login, WITH_TLS) == ["t", "TLSv1.3"]

    run(main())


def test_without_tls_the_servers_refusal_is_passed_on(tls_server: DebianServer) -> None:
    async def main() -> None:
        with pytest.raises(ServerRefused, match=r"no pg_hba\.conf entry") as caught:
            await log_in(of(tls_server))
        assert caught.value.sqlstate == "28000"

    run(main())


@pytest.mark.parametrize("sslmode", ["verify-ca", "verify-full"])
def test_a_strangers_certificate_is_refused(
    tls_server: DebianServer, certificates: Certificates, sslmode: str
) -> None:
    async def main() -> None:
        tls = server_tls(TlsOptions(sslmode, ca_file=certificates.stranger_ca))
        with pytest.raises(ServerLost, match="no TLS with the server") as caught:
            await log_in(of(tls_server), tls=tls)
        assert "certificate verify failed" in caught.value.internal

    run(main())


def test_our_certificate_is_shown_to_the_server(tls_server: DebianServer, certificates: Certificates) -> None:
    async def main() -> None:
        shown = server_tls(
            TlsOptions(
                "verify-full",
                ca_file=certificates.ca,
                cert_file=certificates.client_cert,
                key_file=certificates.client_key,
            )
        )
        states = []
        for tls in (shown, server_tls(TlsOptions("require"))):
            try:
                login = await log_in(of(tls_server), "app", "", "certdb", tls=tls)
            except ServerRefused as refused:
                states.append(refused.sqlstate)
            else:
                login.stream.transport.abort()
                states.append("let in")
        # The database exists if other tests on this server have made it; the certificate is asked for first.
        assert states[0] in ("3D000", "let in")
        assert states[1] == "28000"

    run(main())


def test_a_server_without_tls(dedicated: EmbeddedServer) -> None:
    async def main() -> None:
        for sslmode in ("allow", "prefer"):
            login = await log_in(of(dedicated), tls=server_tls(TlsOptions(sslmode)))
            login.stream.transport.abort()
        for sslmode in ("require", "verify-ca", "verify-full"):
            with pytest.raises(ServerLost, match="does not support TLS"):
                await log_in(of(dedicated), tls=server_tls(TlsOptions(sslmode)))

    run(main())


# --- servers that misbehave -------------------------------------------------------------------------


def against(handler: Handler, check: Callable[[Endpoint], Any]) -> Any:
    async def main() -> Any:
        async with serving(handler) as endpoint:
            return await check(endpoint)

    return run(main())


def refusal(handler: Handler, kind: type[ServerError], **more: Any) -> ServerError:
    async def check(endpoint: Endpoint) -> ServerError:
        with pytest.raises(kind) as caught:
            await log_in(endpoint, **more)
        assert type(caught.value) is kind or kind is ServerLost
        return caught.value

    error: ServerError = against(handler, check)
    return error


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        bytes(64),
        READY,
        KEY,
        encode.parameter_status(b"a", b"b"),
        encode.frame(b"R", b""),
        encode.frame(b"R", b"\0\0"),
        encode.authentication(2),
        encode.authentication(7),
        encode.authentication(99),
        encode.authentication(5, b"xx"),
        encode.authentication(10, b"SCRAM-SHA-1\0\0"),
        encode.authentication(11, b"r=x,s=AAAA,i=1"),
        encode.authentication(12, b"v=AAAA"),
        encode.authentication(10, b"SCRAM-SHA-256\0\0") + AUTH_OK,
        encode.authentication(10, b"SCRAM-SHA-256\0\0") + encode.authentication(12, b"v=") + AUTH_OK + READY,
        encode.authentication(10, b"SCRAM-SHA-256\0\0") + encode.authentication(11, b"r=x,s=AAAA,i=1"),
        AUTH_OK + AUTH_OK,
        AUTH_OK + encode.frame(b"K", b"short"),
        AUTH_OK + encode.frame(b"S", b"no terminator"),
        AUTH_OK + encode.frame(b"D", b"\0\0"),
        AUTH_OK + b"S\x7f\xff\xff\xff",
        AUTH_OK + b"S\0\0\0\x03",
        AUTH_OK + b"S\xff\xff\xff\xff",
        encode.frame(b"E", b"Mno terminator"),
    ],
)
def test_nonsense_is_a_protocol_error(said: bytes) -> None:
    error = refusal(saying(said), ServerProtocolError)
    assert error.sqlstate == "08P01"
    assert error.message in (
        "the server sent something that is not the protocol",
        "internal error",
    )
    assert error.internal


def test_an_error_of_few_words_is_still_passed_on() -> None:
    frame = encode.frame(b"E", b"SFATAL\0Mgo away\0\0")
    error = refusal(saying(frame), ServerRefused)
    assert isinstance(error, ServerRefused)
    assert (error.message, error.sqlstate, error.frame) == ("go away", "08006", frame)


async def _hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await packet(reader)


async def _hangs_up_in_a_message(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await packet(reader)
    writer.write(AUTH_OK + b"S\0\0\0\x20serv")
    await writer.drain()


async def _resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await packet(reader)
    reset(writer)


async def _resets_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    reset(writer)


async def _hangs_up_on_the_password(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await packet(reader)
    writer.write(encode.authentication(3))
    assert await message(reader) == (b"p", b"app-secret\0")


@pytest.mark.parametrize(
    "handler", [_hangs_up, _hangs_up_in_a_message, _resets, _resets_at_once, _hangs_up_on_the_password]
)
def test_a_server_that_leaves_in_the_middle_is_lost(handler: Handler) -> None:
    assert refusal(handler, ServerLost).sqlstate == "08006"


@pytest.mark.parametrize("said", [b"", AUTH_OK, AUTH_OK + b"S\0\0\0\x20", encode.authentication(3)])
def test_a_server_that_hangs_meets_the_login_timeout(said: bytes) -> None:
    options = ServerOptions(server_login_timeout=0.05)
    assert refusal(saying(said), ServerLost, options=options).message == "server_login_timeout"


def test_a_server_that_does_not_answer_ssl_request_meets_the_connect_timeout() -> None:
    options = ServerOptions(server_connect_timeout=0.05)
    for said in (b"", b"S"):  # the second begins TLS and never goes on
        error = refusal(saying(said), ServerLost, options=options, tls=server_tls(TlsOptions("prefer")))
        assert error.message == "server_connect_timeout"


def test_a_server_that_refuses_connections_is_lost() -> None:
    sock, port = silent_port()

    async def main() -> None:
        for host in ("127.0.0.1", "/nowhere", "no-such-host.invalid", "x" * 70 + ".invalid"):
            with pytest.raises(ServerLost, match="cannot be reached"):
                await log_in(Endpoint(host, port, Role.PRIMARY))

    try:
        run(main())
    finally:
        sock.close()


def test_large_values_and_what_follows_the_welcome() -> None:
    large = encode.parameter_status(b"large", b"x" * 600_000)
    after = encode.notice("after the welcome")

    async def check(endpoint: Endpoint) -> None:
        login = await log_in(endpoint)
        assert len(login.parameters["large"]) == 600_000
        assert (login.pid, login.key) == (7, b"key!")
        assert await login.stream.read_exactly(len(after)) == after
        login.stream.transport.abort()

    against(saying(encode.notice("before") + AUTH_OK + large + KEY + READY + after), check)


def test_a_message_that_is_too_large_is_refused() -> None:
    refusal(saying(AUTH_OK + encode.parameter_status(b"large", b"x" * (1 << 20))), ServerProtocolError)


def test_a_server_that_does_not_know_our_password_is_found_out() -> None:
    """It plays SCRAM with a verifier of another password, and lets everyone in."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await packet(reader)
        exchange = scram.ServerExchange(scram.make_verifier("another", b"salt", 4))
        writer.write(encode.authentication(10, b"SCRAM-SHA-256\0\0"))
        _, body = await message(reader)
        writer.write(encode.authentication(11, exchange.first(body[18:])))
        await message(reader)
        writer.write(encode.authentication(12, b"v=" + b"A" * 43 + b"=") + AUTH_OK + KEY + READY)
        await reader.read()

    error = refusal(handler, ServerProtocolError)
    assert "signature" in error.internal


# --- servers that misbehave before TLS ------------------------------------------------------------------


def _then_plain(answer: bytes) -> Handler:
    """`answer` for an SSLRequest, on the next connection (or after `N` on this one) a welcome."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await packet(reader) == SSL_REQUEST[4:]:
            writer.write(answer)
            if answer != b"N":
                await reader.read()
                return
            await packet(reader)
        writer.write(AUTH_OK + KEY + READY)
        await reader.read()

    return handler


@pytest.mark.parametrize("answer", [b"N", b"Snot a TLS record at all", b"S" + AUTH_OK + KEY + READY])
def test_prefer_goes_on_in_plain_text_and_require_does_not(answer: bytes) -> None:
    async def check(endpoint: Endpoint) -> None:
        login = await log_in(endpoint, tls=server_tls(TlsOptions("prefer")))
        assert login.pid == 7
        login.stream.transport.abort()
        for sslmode in ("require", "verify-ca", "verify-full"):
            with pytest.raises(ServerLost):
                await log_in(endpoint, tls=server_tls(TlsOptions(sslmode)))

    against(_then_plain(answer), check)


def test_an_error_in_place_of_an_answer_is_not_believed() -> None:
    """Anyone on the way could have sent it."""
    answer = encode.error("give me your password", "28P01", severity="FATAL")
    for sslmode in ("prefer", "require"):
        error = refusal(_then_plain(answer), ServerLost, tls=server_tls(TlsOptions(sslmode)))
        assert "password" not in error.message
        refusal(_then_plain(b"X"), ServerProtocolError, tls=server_tls(TlsOptions(sslmode)))
        refusal(_then_plain(b""), ServerLost, tls=server_tls(TlsOptions(sslmode)), options=_SHORT)


_SHORT = ServerOptions(server_connect_timeout=0.05)


def _under_tls(certificates: Certificates, said: bytes) -> Handler:
    """Says `said` to who comes with TLS, and welcomes who comes without."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server_cert, certificates.server_key)

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        secure = await packet(reader) == SSL_REQUEST[4:]
        if secure:
            writer.write(b"S")
            await writer.drain()
            await writer.start_tls(context)
            await packet(reader)
        writer.write(said if secure else AUTH_OK + KEY + READY)
        await reader.read()

    return handler


@pytest.mark.parametrize(
    ("sslmode", "sqlstate", "let_in"),
    [("prefer", "28000", True), ("prefer", "28P01", False), ("require", "28000", False)],
)
def test_who_is_refused_with_tls_tries_without_where_that_may_do(
    certificates: Certificates, sslmode: str, sqlstate: str, let_in: bool
) -> None:
    async def check(endpoint: Endpoint) -> None:
        if let_in:
            login = await log_in(endpoint, tls=server_tls(TlsOptions(sslmode)))
            login.stream.transport.abort()
            return
        with pytest.raises(ServerRefused) as caught:
            await log_in(endpoint, tls=server_tls(TlsOptions(sslmode)))
        assert caught.value.sqlstate == sqlstate

    against(_under_tls(certificates, encode.error("no", sqlstate, severity="FATAL")), check)


def test_verify_full_looks_at_the_name(certificates: Certificates) -> None:
    """A certificate of the right authority for 127.0.0.1 is none for another address."""
    handler = _under_tls(certificates, AUTH_OK + KEY + READY)

    async def main() -> None:
        async with serving(handler) as endpoint:
            for sslmode in ("verify-ca", "verify-full"):
                login = await log_in(endpoint, tls=server_tls(TlsOptions(sslmode, ca_file=certificates.ca)))
                login.stream.transport.abort()
        other = await asyncio.start_server(lambda r, w: _closing(handler, r, w), "127.0.0.2", 0)
        endpoint = Endpoint("127.0.0.2", other.sockets[0].getsockname()[1], Role.PRIMARY)
        login = await log_in(endpoint, tls=server_tls(TlsOptions("verify-ca", ca_file=certificates.ca)))
        login.stream.transport.abort()
        with pytest.raises(ServerLost) as caught:
            await log_in(endpoint, tls=server_tls(TlsOptions("verify-full", ca_file=certificates.ca)))
        assert "IP address mismatch" in caught.value.internal
        other.close()

    run(main(), stdlib=True)


async def _closing(handler: Handler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        await handler(reader, writer)
    except (OSError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


# --- addresses --------------------------------------------------------------------------------------


def test_all_addresses_of_a_name_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """`localhost` is ::1 and 127.0.0.1, and often only one of them listens."""

    async def main() -> None:
        sock, dead = silent_port()
        async with serving(saying(AUTH_OK + KEY + READY)) as endpoint:
            good = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", endpoint.port))
            refusing = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", dead))
            six = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", dead, 0, 0))
            unknown = (socket.AF_APPLETALK, socket.SOCK_STREAM, 6, "", ("127.0.0.1", dead))
            found = [unknown, six, refusing, good]

            async def getaddrinfo(*_: object, **__: object) -> list[Any]:
                return found

            monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
            login = await log_in(Endpoint("localhost", 1, Role.PRIMARY))
            login.stream.transport.abort()
            found.pop()
            with pytest.raises(ServerLost):
                await log_in(Endpoint("localhost", 1, Role.PRIMARY))
            found.clear()
            with pytest.raises(ServerLost):
                await log_in(Endpoint("localhost", 1, Role.PRIMARY))
        sock.close()

    run(main(), stdlib=True)


def test_ipv6() -> None:
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError as error:
        pytest.skip(f"no IPv6 on loopback: {error}")

    async def main() -> None:
        endpoint = Endpoint("::1", listener.getsockname()[1], Role.PRIMARY)
        assert str(endpoint).startswith("[::1]:")
        sock = await open_socket(endpoint, TcpOptions(tcp_keepidle=7, tcp_keepcnt=0))
        assert sock.family == socket.AF_INET6
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 7
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 10
        sock.close()

    try:
        run(main())
    finally:
        listener.close()


def test_a_login_that_is_cancelled_leaves_nothing() -> None:
    """Whoever waits for a connection may give up; the socket goes with it (`run` looks)."""

    async def main() -> None:
        began = asyncio.Event()

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await packet(reader)
            began.set()
            assert await reader.read() == b""

        async with serving(handler) as endpoint:
            for tls in (PLAIN, server_tls(TlsOptions("require"))):
                began.clear()
                task = asyncio.create_task(log_in(endpoint, tls=tls))
                await began.wait()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task

    run(main())


def test_the_startup_packet_says_what_was_asked() -> None:
    seen: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await packet(reader))
        writer.write(AUTH_OK + KEY + READY)
        await reader.read()

    async def check(endpoint: Endpoint) -> None:
        login = await log_in(endpoint, "äpp", database="d b", parameters={"replication": "database"})
        login.stream.transport.abort()

    against(handler, check)
    expected = "user\0äpp\0database\0d b\0replication\0database\0\0".encode()
    assert seen == [struct.pack("!I", 0x30000) + expected]
