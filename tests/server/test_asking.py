"""Statements of our own: rows, bound values, errors, and what is not an answer."""

from __future__ import annotations

import pytest

from proxy.cli.embedded import EmbeddedServer
from proxy.errors import ServerProtocolError, ServerRefused
from proxy.model import Endpoint, Role, ServerOptions, TlsOptions
from proxy.net.stream import LoginStream
from proxy.net.tls import server_tls
from proxy.server import asking
from proxy.server.login import connect
from proxy.wire import encode
from tests.server.fakes import run, saying, serving

WELCOME = encode.AUTHENTICATION_OK + encode.ready_for_query()


async def logged_in(endpoint: Endpoint, *, introduce: bool = False) -> LoginStream:
    done = await connect(
        endpoint, database="appdb", user="postgres", password="", options=ServerOptions(),
        tls=server_tls(TlsOptions("disable")), parameters={}, introduce=introduce,
    )  # fmt: skip
    return done.stream


def test_rows_values_and_errors(shared: EmbeddedServer) -> None:
    async def main() -> None:
        stream = await logged_in(Endpoint(shared.host, shared.port, Role.PRIMARY))
        ask = asking.ask
        assert await ask(stream, "SELECT $1, $2::int + 1, NULL", "it's", "41") == [("it's", "42", None)]
        assert await ask(stream, "SELECT n FROM generate_series(1, 3) AS n") == [("1",), ("2",), ("3",)]
        with pytest.raises(ServerRefused, match="division by zero") as caught:
            await ask(stream, "SELECT 1 / $1::int", "0")
        assert caught.value.sqlstate == "22012"
        await asking.run(stream, "CREATE TEMP TABLE t (n int); INSERT INTO t VALUES (1), (2)")
        with pytest.raises(ServerRefused):
            await asking.run(stream, "INSERT INTO t VALUES (3); SELECT 1/0")
        assert await ask(stream, "SELECT count(*) FROM t") == [("2",)], "a script is one transaction"
        await stream.close()

    run(main())


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (encode.frame(b"G", b"\0\0\0"), ServerProtocolError),
        (encode.error("goodbye", "57P01", severity="FATAL"), ServerRefused),
    ],
)
def test_what_is_not_an_answer(said: bytes, kind: type[Exception]) -> None:
    async def main() -> None:
        async with serving(saying(WELCOME, said)) as endpoint:
            stream = await logged_in(endpoint)
            with pytest.raises(kind):
                await asking.ask(stream, "SELECT 1")
            stream.transport.abort()

    run(main())


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (encode.data_row(["2 17 x"]) + encode.command_complete("SELECT 1"), "SQL kit is of another version"),
        (encode.error('schema "tiergate" does not exist', "3F000"), 'schema "tiergate" does not exist'),
    ],
)
def test_a_server_that_cannot_be_introduced_is_refused_with_what_helps(answer: bytes, reason: str) -> None:
    async def main() -> None:
        async with serving(saying(WELCOME, answer + encode.ready_for_query())) as endpoint:
            with pytest.raises(ServerRefused, match=reason) as caught:
                await logged_in(endpoint, introduce=True)
            assert b"tiergate sql install" in caught.value.frame

    run(main())
