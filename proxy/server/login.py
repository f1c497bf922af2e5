"""Opens a connection to a server: socket, TLS, authentication, and what it reports until it is ready."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from proxy.auth.binding import server_end_point
from proxy.auth.to_server import ToServer
from proxy.errors import ProtocolViolation, ServerLost, ServerProtocolError, ServerRefused
from proxy.model import Endpoint, ServerOptions, TcpOptions
from proxy.net.stream import LoginStream, PeerGone, connected
from proxy.net.tcp import tune
from proxy.net.tls import ServerTls
from proxy.protocol.seal import INTRODUCE, Introduction, read_introduction
from proxy.server.asking import ask
from proxy.server.custody import Held
from proxy.wire import decode, encode

_MAX_MESSAGE = 1 << 20
_TCP = TcpOptions()  # of connections for one packet
Secret = tuple[str, bytes]  # password or verifier, and the key of the latter


@dataclass(frozen=True, slots=True)
class ServerLogin:
    """A server that is ready for its first query."""

    stream: LoginStream
    parameters: dict[str, str]
    pid: int
    key: bytes
    introduction: Introduction | None = None


class _TlsFailed(ServerLost):
    """The handshake failed; where TLS is only preferred, plain text may do."""


async def connect(
    endpoint: Endpoint,
    *,
    database: str,
    user: str,
    password: str,
    options: ServerOptions,
    tls: ServerTls,
    parameters: Mapping[str, str],
    held: Held | None = None,
    introduce: bool = False,
    client_key: bytes = b"",
) -> ServerLogin:
    """`client_key`: what stands for the user's password, where `password` is its SCRAM verifier. `introduce`: the tenants of
    this connection are to be sealed. Raises ServerRefused with the server's own words, ServerLost, or
    ServerProtocolError."""
    wanted = {"user": user, "database": database, **parameters}
    if options.client_connection_check_interval:
        milliseconds = max(1, int(options.client_connection_check_interval * 1000))
        wanted["client_connection_check_interval"] = str(milliseconds)
    try:
        done = await _connect(endpoint, wanted, (password, client_key), options, tls, held)
        if introduce:
            async with _answering(endpoint, done.stream, options.server_login_timeout or None):
                done = replace(done, introduction=await _introduced(done.stream))
    except BaseException:
        if held is not None:
            held.closed()
        raise
    if held is not None:
        held.known(done.pid, done.key)
    return done


async def _connect(
    endpoint: Endpoint,
    wanted: Mapping[str, str],
    secret: Secret,
    options: ServerOptions,
    tls: ServerTls,
    held: Held | None,
) -> ServerLogin:
    attempts = [tls.first] if tls.context is None or tls.required else [tls.first, not tls.first]
    if endpoint.host.startswith("/"):
        attempts = [False]  # no TLS on unix sockets
    for last, secure in enumerate(attempts, start=1 - len(attempts)):
        try:
            stream = await _open(
                endpoint, tls, secure, options.server_connect_timeout or None, options.tcp, held
            )
            return await _log_in(endpoint, stream, wanted, secret, options.server_login_timeout or None)
        except _TlsFailed:
            if last == 0:
                raise
        except ServerRefused as error:
            # Other rules of pg_hba.conf may hold with or without TLS.
            if last == 0 or error.sqlstate != "28000":
                raise
    raise AssertionError("the last attempt returns or raises")


async def _open(
    endpoint: Endpoint,
    tls: ServerTls,
    secure: bool,
    timeout: float | None,
    tcp: TcpOptions,
    held: Held | None = None,
) -> LoginStream:
    try:
        async with asyncio.timeout(timeout):
            sock = await open_socket(endpoint, tcp)
            try:
                if held is not None:
                    held.connected(sock)
                return await _wrap(sock, endpoint, tls, secure)
            except BaseException:
                sock.close()
                raise
    except TimeoutError:
        raise ServerLost(
            "server_connect_timeout", internal=f"{endpoint} did not answer in {timeout} s"
        ) from None
    except ssl.SSLError as error:
        raise _TlsFailed("no TLS with the server", internal=f"{endpoint}: {error}") from None
    except (OSError, UnicodeError) as error:  # UnicodeError: a host name that cannot be looked up
        raise ServerLost(
            "the server cannot be reached", internal=f"{endpoint}: {error.__class__.__name__} {error}"
        ) from None


async def open_socket(endpoint: Endpoint, tcp: TcpOptions) -> socket.socket:
    loop = asyncio.get_running_loop()
    if endpoint.host.startswith("/"):
        path = os.path.join(endpoint.host, f".s.PGSQL.{endpoint.port}")
        return await _connected(socket.AF_UNIX, path, tcp)
    failure = OSError("no address")
    found = await loop.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    for family, _kind, _proto, _name, where in found:
        try:
            return await _connected(family, where, tcp)
        except OSError as error:
            failure = error
    raise failure


async def _connected(family: int, where: Any, tcp: TcpOptions) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if family != socket.AF_UNIX:
            tune(sock, tcp)
        await asyncio.get_running_loop().sock_connect(sock, where)
    except BaseException:
        sock.close()
        raise
    return sock


async def _wrap(sock: socket.socket, endpoint: Endpoint, tls: ServerTls, secure: bool) -> LoginStream:
    loop = asyncio.get_running_loop()
    context = None
    if secure and tls.context is not None and not endpoint.host.startswith("/"):
        await loop.sock_sendall(sock, encode.SSL_REQUEST)
        answer = await loop.sock_recv(sock, 1)
        if answer == b"S":
            context = tls.context
        elif not answer:
            raise PeerGone("the server hung up on SSLRequest")
        elif answer == b"E":
            # Unencrypted and by whoever it may be: its words are not passed on.
            raise ServerLost("the server cannot be reached", internal=f"{endpoint}: error for SSLRequest")
        elif answer != b"N":
            raise ServerProtocolError(internal=f"{endpoint} answered SSLRequest with {answer!r}")
    if tls.required and context is None and not endpoint.host.startswith("/"):
        raise ServerLost("the server does not support TLS", internal=f"{endpoint}: sslmode {tls.sslmode}")
    return await connected(sock, context, endpoint.host)


async def _log_in(
    endpoint: Endpoint,
    stream: LoginStream,
    wanted: Mapping[str, str],
    secret: Secret,
    timeout: float | None,
) -> ServerLogin:
    async with _answering(endpoint, stream, timeout):
        return await _converse(stream, wanted, secret)


@contextlib.asynccontextmanager
async def _answering(endpoint: Endpoint, stream: LoginStream, timeout: float | None) -> AsyncIterator[None]:
    """What goes wrong in a conversation ends the connection and is said in our words."""
    try:
        async with asyncio.timeout(timeout):
            yield
    except BaseException as error:
        stream.transport.abort()
        if isinstance(error, TimeoutError):
            raise ServerLost(
                "server_login_timeout", internal=f"{endpoint}: no welcome in {timeout} s"
            ) from None
        if isinstance(error, (PeerGone, OSError)):
            raise ServerLost(
                "the server closed the connection during the login", internal=f"{endpoint}"
            ) from None
        if isinstance(error, ProtocolViolation):
            raise ServerProtocolError(
                "the server sent something that is not the protocol", internal=f"{endpoint}: {error}"
            ) from None
        raise


async def _converse(stream: LoginStream, wanted: Mapping[str, str], secret: Secret) -> ServerLogin:
    stream.write(encode.startup(wanted))
    auth = ToServer(wanted["user"], *secret, binding=_binding(stream))
    parameters: dict[str, str] = {}
    pid, key = 0, b""
    authenticated = False
    while True:
        kind, body = await stream.read_message(_MAX_MESSAGE)
        match chr(kind):
            case "R" if not authenticated:
                code, data = decode.authentication(body)
                if auth.slow(code, data):
                    answer = await asyncio.get_running_loop().run_in_executor(None, auth.respond, code, data)
                else:
                    answer = auth.respond(code, data)
                authenticated = code == 0
                if answer:
                    stream.write(answer)
            case "E":
                fields = decode.error_fields(body)
                raise ServerRefused(fields.get("M", ""), fields.get("C", "08006"), encode.frame(b"E", body))
            case "S" if authenticated:
                name, value = decode.parameter_status(body)
                parameters[name] = value
            case "K" if authenticated:
                pid, key = decode.backend_key_data(body)
            case "Z" if authenticated:
                return ServerLogin(stream, parameters, pid, key)
            case "N":
                continue
            case _:
                raise ServerProtocolError(
                    "the server sent something that is not the protocol",
                    internal=f"a message of type {chr(kind)!r} during the login",
                )


def _binding(stream: LoginStream) -> bytes:
    """What SCRAM is bound to: the certificate of the server at the other end of TLS."""
    tls: ssl.SSLObject | None = stream.transport.get_extra_info("ssl_object")
    certificate = tls.getpeercert(binary_form=True) if tls is not None else None
    return server_end_point(certificate) if certificate else b""


async def _introduced(stream: LoginStream) -> Introduction:
    try:
        ((said,),) = await ask(stream, INTRODUCE)
        return read_introduction(said or "")
    except (ServerRefused, ValueError) as error:
        # Without the kit no tenant would see a row, so there is no use for the connection.
        reason = error.message if isinstance(error, ServerRefused) else str(error)
        sqlstate = error.sqlstate if isinstance(error, ServerRefused) else "55000"
        message = f"the tenant cannot be sealed in this database: {reason}"
        frame = encode.error(message, sqlstate, hint="tiergate sql install brings the SQL kit up to date.")
        raise ServerRefused(message, sqlstate, frame) from None


async def say_and_wait(endpoint: Endpoint, tls: ServerTls, packet: bytes, timeout: float | None) -> None:
    """Opens a connection only to say `packet`, and waits until the server hangs up. Raises ServerLost."""
    stream = await _open(endpoint, tls, tls.first, timeout, _TCP)
    try:
        async with asyncio.timeout(timeout):
            stream.write(packet)
            with contextlib.suppress(PeerGone):
                await stream.read_exactly(1)
    except TimeoutError:
        raise ServerLost(
            "cancel_wait_timeout", internal=f"{endpoint}: no answer to a cancel request"
        ) from None
    finally:
        stream.transport.abort()
