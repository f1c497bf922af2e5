"""Many clients in a process of their own: each transaction must answer with its own tenant and its own echo.

`python -m tests.integration.load_clients [--again] PORT DATABASE SECONDS CLIENTS TENANT...` prints one line of JSON:
transactions done, wrong answers, lost ones (a connection that ended or an answer that never came), errors. With
--again a client that has lost its connection opens another, and all go on until their input ends (SECONDS may be inf).
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from time import monotonic

import uvloop

from proxy.wire import decode, encode

Over = Callable[[], bool]
QUERY = b"SELECT current_setting('app.tenant_id'), $1::text"
LOGINS_AT_ONCE = 100
ANSWER_TIMEOUT = 60.0


@dataclass
class Result:
    done: int = 0
    wrong: int = 0
    lost: int = 0
    errors: dict[str, int] = field(default_factory=dict)

    def error(self, sqlstate: str) -> None:
        self.errors[sqlstate] = self.errors.get(sqlstate, 0) + 1


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def read_ready(self) -> tuple[list[tuple[bytes, ...]], str]:
        """The rows up to ReadyForQuery, and the SQLSTATE of an error if there was one."""
        rows: list[tuple[bytes, ...]] = []
        sqlstate = ""
        while True:
            header = await self.reader.readexactly(5)
            body = await self.reader.readexactly(int.from_bytes(header[1:], "big") - 4)
            kind = header[:1]
            if kind == b"D":
                rows.append(_row(body))
            elif kind == b"E":
                sqlstate = decode.error_fields(body)["C"]
            elif kind == b"Z":
                return rows, sqlstate

    async def ask(self, request: bytes) -> tuple[list[tuple[bytes, ...]], str]:
        self.writer.write(request)
        return await asyncio.wait_for(self.read_ready(), ANSWER_TIMEOUT)


def _row(body: bytes) -> tuple[bytes, ...]:
    values, at = [], 2
    for _ in range(int.from_bytes(body[:2], "big")):
        length = int.from_bytes(body[at : at + 4], "big")
        values.append(body[at + 4 : at + 4 + length])
        at += 4 + length
    return tuple(values)


async def log_in(port: int, database: str, tenant: str) -> Client:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    client = Client(reader, writer)
    parameters = {"user": "app", "database": database, "app.tenant_id": tenant, "application_name": tenant}
    try:
        _, sqlstate = await client.ask(encode.startup(parameters))
        if sqlstate:
            raise ConnectionError(sqlstate)
    except BaseException:
        writer.close()
        raise
    return client


def transaction(kind: int, echo: bytes) -> list[bytes]:
    """The requests of one transaction, each up to its ReadyForQuery; the last asks for tenant and echo."""
    bound = encode.bind(b"", b"s", [echo]) + encode.execute() + encode.SYNC
    prepared = encode.parse(b"s", QUERY) + bound + encode.close(b"S", b"s") + encode.SYNC
    literal = QUERY.replace(b"$1", b"'" + echo + b"'")
    match kind:
        case 0:
            return [encode.query(literal)]
        case 1:
            return [encode.parse(b"", QUERY) + encode.bind(b"", b"", [echo]) + encode.execute() + encode.SYNC]
        case 2:
            return [encode.query(b"BEGIN"), encode.query(b"SELECT pg_sleep(0.002)"), encode.query(literal)]
        case _:
            return [prepared]


async def live(
    port: int,
    database: str,
    tenant: str,
    number: int,
    over: Over,
    result: Result,
    gate: asyncio.Semaphore,
    rest: float,
) -> bool:
    """True when its time is over, False if it has lost its connection."""
    dice = random.Random(number)
    client: Client | None = None
    count = 0
    try:
        async with gate:
            client = await log_in(port, database, tenant)
        while not over() or not count:
            count += 1
            echo = f"{tenant}/{number}/{count}".encode()
            kind = dice.randrange(4)
            rows: list[tuple[bytes, ...]] = []
            sqlstate = ""
            for request in transaction(kind, echo):
                if request.count(encode.SYNC) == 2:
                    first, second = request.split(encode.SYNC, 1)
                    rows, sqlstate = await client.ask(first + encode.SYNC)
                    await client.ask(second)
                else:
                    rows, sqlstate = await client.ask(request)
                if sqlstate:
                    break
            if kind == 2:
                await client.ask(encode.query(b"COMMIT"))
            if sqlstate:
                result.error(sqlstate)
            elif rows != [(tenant.encode(), echo)]:
                result.wrong += 1
                print(f"wrong: {tenant} {echo!r} got {rows!r}", file=sys.stderr)
            else:
                result.done += 1
            await asyncio.sleep(dice.random() * rest)
        client.writer.write(encode.TERMINATE)
        await client.writer.drain()
    except (OSError, EOFError, TimeoutError) as error:
        result.lost += 1
        print(f"lost: {tenant} client {number}: {error!r}", file=sys.stderr)
        return False
    finally:
        if client is not None:
            client.writer.close()
    return True


async def run(
    port: int, database: str, seconds: float, clients: int, tenants: list[str], again: bool = False
) -> Result:
    result = Result()
    gate = asyncio.Semaphore(LOGINS_AT_ONCE)
    until, told = monotonic() + seconds, threading.Event()
    if again:
        threading.Thread(target=lambda: (sys.stdin.read(), told.set()), daemon=True).start()

    def over() -> bool:
        return told.is_set() or monotonic() >= until

    async def one(number: int) -> None:
        tenant = tenants[number % len(tenants)]
        while (
            not await live(port, database, tenant, number, over, result, gate, 2.0 if again else 0.4)
            and again
            and not over()
        ):
            pass

    await asyncio.gather(*map(one, range(clients)))
    return result


def main() -> None:
    again = "--again" in sys.argv
    port, database, seconds, clients, *tenants = (word for word in sys.argv[1:] if word != "--again")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    result = uvloop.run(run(int(port), database, float(seconds), int(clients), tenants, again))
    print(json.dumps(asdict(result)))


if __name__ == "__main__":
    main()
