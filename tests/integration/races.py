"""Races for another tenant's rows: what each session gets to read while states change, servers die and others leave."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.integration.attempts import BECOME, READ, SERVICE, USER, x
from tests.integration.red_side import DATABASE, OWNERS, Side, awaited, secret, sent
from tests.integration.running import waiting
from tests.integration.servers import connect
from tests.rawclient import (
    FLUSH,
    SYNC,
    Closed,
    Frame,
    RawClient,
    ServerError,
    bind,
    execute,
    parse,
    query,
    send_cancel,
)
from tests.rawclient import sqlstates as states

Race = Callable[[Side], None]
VICTIM = "app@std_2"
_ENDED = {"57P01", "57P02", "57P03", "08006", "08003", "08000"}  # of a connection or its server


def only(frames: list[Frame], *tenants: str) -> bool:
    """Nothing of others; whether there was anything of these."""
    said = b"".join(frame.body for frame in frames)
    for other in OWNERS:
        assert other in tenants or secret(other) not in said, (tenants, other)
    return any(secret(tenant) in said for tenant in tenants)


def answers(frames: list[Frame]) -> list[list[Frame]]:
    """What answers each request."""
    found: list[list[Frame]] = [[]]
    for frame in frames:
        found[-1].append(frame)
        if frame.kind == "Z":
            found.append([])
    return found[:-1]


def choose(tenant: str) -> str:
    return f"SET app.tenant_id = '{tenant}'"


def in_block(tenant: str) -> list[str]:
    return ["BEGIN", f"SET LOCAL app.tenant_id = '{tenant}'", READ, "COMMIT"]


def switches_while_it_pipelines(side: Side) -> None:
    with side.enters(SERVICE) as client:
        tenants = ["free_1", "std_1", "std_2", "free_1", "std_2", "std_1", "free_1"]
        texts = [text for tenant in tenants for text in (choose(tenant), READ)]
        data = b"".join(sent(text, side.table) for text in texts)
        found = answers(client.ask(data, awaited(data)))
        speaks = "std_1"
        for tenant, named, read in zip(tenants, found[::2], found[1::2], strict=True):
            speaks = speaks if tenant == "std_2" else tenant
            assert states(named) == (["42501"] if tenant == "std_2" else [])
            assert only(read, speaks)


def switches_within_blocks_while_it_pipelines(side: Side) -> None:
    with side.enters(SERVICE) as client:
        for tenants in (["free_1", "std_2", "std_1"], ["std_2", "free_1"]):
            texts = [text for tenant in tenants for text in in_block(tenant)]
            found = answers(client.ask(b"".join(sent(text, side.table) for text in texts), len(texts)))
            for tenant, read in zip(tenants, found[2::4], strict=True):
                assert only(read, tenant) is (tenant != "std_2")


def switches_within_batches(side: Side) -> None:
    with side.enters(SERVICE) as client:
        name = "SELECT set_config('app.tenant_id', $1, false)"
        tenants = ["free_1", "std_2", "std_1", "free_1"]
        data = b"".join(x(name, [tenant])(side.table) + x(READ)(side.table) for tenant in tenants)
        found = answers(client.ask(data, 2 * len(tenants)))
        assert [
            only(read, tenant)
            for read, tenant in zip(found[1::2], ["free_1", "free_1", "std_1", "free_1"], strict=True)
        ]
        assert states(found[2]) == ["42501"]


def cancels_its_own_change(side: Side) -> None:
    with side.enters(SERVICE) as client:
        for turn in range(24):
            tenant = ("std_1", "free_1")[turn % 2]
            texts = in_block(tenant) if turn % 3 else [choose(tenant), READ]
            client.send(b"".join(sent(text, side.table) for text in texts))
            send_cancel(side.proxy.port, client.pid, client.key)
            found = answers(client.read_ready(len(texts)))
            only([frame for answer in found for frame in answer], tenant)
            for answer in found:
                assert set(states(answer)) <= {"57014", "25P02"}, states(answer)
            client.query("ROLLBACK")
            client.checked(client.query(choose("std_1")))


@contextmanager
def meanwhile(side: Side, function: str) -> Iterator[None]:
    """Somebody does something to the backends over and over again."""
    over = threading.Event()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            with connect(side.server, DATABASE) as other:
                # Between them what is asked again can be answered: at times also on a machine that is too busy for it.
                pauses = itertools.cycle([0.03] * 9 + [0.5])
                while not over.wait(next(pauses)):
                    other.execute(
                        f"SELECT {function}(pid) FROM pg_stat_activity WHERE usename = 'app' AND datname = '{DATABASE}'"
                        " AND pid <> pg_backend_pid()".encode()
                    )
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(20)
    assert not failures, failures


def reads_in_turn(side: Side, turns: int, allowed: set[str]) -> int:
    """Attacker and victim, who come back when they lose their connection; how often somebody read."""
    clients: dict[str, RawClient | None] = {USER: None, VICTIM: None, SERVICE: None}
    whose = {USER: "std_1", VICTIM: "std_2", SERVICE: "free_1"}
    count = 0
    for turn in range(turns):
        for who in clients:
            frames: list[Frame] = []
            try:
                client = clients[who] = clients[who] or side.enters(who)
                if who == SERVICE:
                    frames += client.query(choose("free_1"))
                frames += client.ask(sent(READ, side.table) if turn % 2 else x(READ)(side.table))
            except (Closed, ServerError) as ended:
                frames += ended.frames
                clients[who] = None
            except (ConnectionError, BrokenPipeError):
                clients[who] = None
            assert set(states(frames)) <= allowed, states(frames)
            count += only(frames, whose[who])
    for client in clients.values():
        if client is not None:
            client.close()
    return count


def is_cancelled_at_the_change(side: Side) -> None:
    with meanwhile(side, "pg_cancel_backend"):
        reads_in_turn(side, 30, {"57014"})
    assert reads_in_turn(side, 2, {"57014"})


def loses_the_server_at_the_change(side: Side) -> None:
    with meanwhile(side, "pg_terminate_backend"):
        reads_in_turn(side, 15, _ENDED)
    for tenant in side.honest:
        side.honest[tenant].close()
        side.honest[tenant] = side.proxy.raw(f"app@{tenant}", DATABASE)
    assert reads_in_turn(side, 2, _ENDED)


def leaves_within_the_block_of_another(side: Side) -> None:
    for turn in range(8):
        client = side.enters(SERVICE)
        client.checked(client.query("BEGIN; SET LOCAL app.tenant_id = 'free_1'"))
        assert only(client.checked(client.query(READ.replace("{t}", side.table))), "free_1")
        client.send(query(f"UPDATE {side.table} SET item = 'x'"))
        (client.reset if turn % 2 else client.hang_up)()
        with side.enters(USER) as other:
            assert only(other.checked(other.ask(sent(READ, side.table))), "std_1")
        side.untouched()


def leaves_within_the_change(side: Side) -> None:
    pieces = (
        query("SET app.tenant_id = 'free_1'") + query("SELECT 1")[:-3],
        query("BEGIN") + query("SET LOCAL app.tenant_id = 'free_1'") + sent(READ, side.table),
        parse("SET app.tenant_id = 'free_1'") + bind() + execute() + parse(READ.replace("{t}", side.table)) + bind() + FLUSH,
        parse("SELECT set_config('app.tenant_id', $1, false)") + bind(["free_1"]) + execute() + SYNC + query("RESET ALL"),
    )  # fmt: skip
    for piece in pieces * 2:
        client = side.enters(SERVICE)
        client.send(piece)
        client.hang_up()
        with side.enters(USER) as other:
            assert only(other.checked(other.ask(sent(READ, side.table))), "std_1")
        side.untouched()


def is_paused_at_the_change(side: Side) -> None:
    with side.enters(SERVICE) as client, side.enters(USER) as other, side.enters(VICTIM) as victim:
        for tenant in ("free_1", "std_1"):
            side.proxy.console("PAUSE")
            client.send(
                b"".join(sent(text, side.table) for text in (choose(tenant), READ, choose("std_2"), READ))
            )
            other.send(sent(READ, side.table))
            victim.send(sent(READ, side.table))
            waiting(side.proxy, 3)
            side.proxy.console("RESUME")
            _, first, named, second = answers(client.read_ready(4))
            assert (only(first, tenant), states(named), only(second, tenant)) == (True, ["42501"], True)
            assert only(other.read_ready(), "std_1")
            assert only(victim.read_ready(), "std_2")


@contextmanager
def reloaded(side: Side, text: str) -> Iterator[None]:
    before = side.proxy.config.read_text()
    assert text != before
    side.proxy.reload(text)
    try:
        yield
    finally:
        side.proxy.reload(before)


def loses_the_right_to_its_tenant(side: Side) -> None:
    """The configuration changes within a block: what was begun may end, and nothing more."""
    text = side.proxy.config.read_text()
    fewer = text.replace('tenants = ["std_1", "free_1"]', 'tenants = ["free_1"]')
    with side.enters(SERVICE) as client:
        client.checked(client.query("BEGIN"))
        only(client.ask(sent(READ, side.table)), "std_1")
        with reloaded(side, fewer):
            frames = client.ask(sent(READ, side.table)) + client.query("COMMIT")
            only(frames, "std_1")
            for step in (sent(READ, side.table), query(choose("std_1")), query(choose("std_2"))):
                assert states(client.ask(step)) == ["42501"]
            client.checked(client.query(choose("free_1")))
            assert only(client.ask(sent(READ, side.table)), "free_1")


def is_suspended_within_its_block(side: Side) -> None:
    text = side.proxy.config.read_text()
    suspended = text.replace("[tenant.free_1]\n", "[tenant.free_1]\nactive = false\n")
    with side.enters(SERVICE) as client:
        client.checked(client.query("BEGIN; SET LOCAL app.tenant_id = 'free_1'"))
        assert only(client.ask(sent(READ, side.table)), "free_1")
        with reloaded(side, suspended):
            only(client.ask(sent(READ, side.table)) + client.query("ROLLBACK"), "free_1")
            assert states(client.query(choose("free_1"))) == ["42501"]
            assert only(client.ask(sent(READ, side.table)), "std_1")
            client.checked(client.query("BEGIN"))
            assert states(client.query("SET LOCAL app.tenant_id = 'free_1'")) == ["42501"]
            assert states(client.ask(sent(READ, side.table))) == ["25P02"]
    side.honest["free_1"].close()
    side.honest["free_1"] = side.proxy.raw("app@free_1", DATABASE)


def is_moved_within_its_block(side: Side) -> None:
    """To a cluster that has no such database: nobody is served in the old place on its behalf."""
    text = side.proxy.config.read_text()
    moved = text.replace("[tenant.free_1]\n", '[tenant.free_1]\ncluster = "ent"\n')
    with side.enters(SERVICE) as client:
        client.checked(client.query("BEGIN; SET LOCAL app.tenant_id = 'free_1'"))
        assert only(client.ask(sent(READ, side.table)), "free_1")
        with reloaded(side, moved):
            only(client.ask(sent(READ, side.table)) + client.query("COMMIT"), "free_1")
            assert only(client.ask(sent(READ, side.table)), "std_1")
            found = client.query(choose("free_1")) + client.ask(sent(READ, side.table))
            assert states(found)
            assert not only(found)
    side.honest["free_1"].close()
    side.honest["free_1"] = side.proxy.raw("app@free_1", DATABASE)


# What may be asked in any order: whose rows it reads, None for nobody's. {} is the session's own tenant.
_ASKED = {
    USER: [
        READ, READ, "BEGIN; " + READ + "; COMMIT", "SET app.tenant_id = 'std_2'", "RESET ALL", "SELECT 1/0",
        "SET work_mem = '1MB'", "DISCARD ALL", "SELECT set_config('app.tenant_id '::bpchar, 'std_2', false)",
    ],
    VICTIM: [
        READ, READ, "BEGIN; " + READ + "; ROLLBACK", "SELECT 1/0", "SET DateStyle = 'German'", "RESET ALL",
        "UPDATE {t} SET item = item",
    ],
    SERVICE: [
        "SET app.tenant_id = 'free_1'; " + READ, "BEGIN; SET LOCAL app.tenant_id = 'free_1'; " + READ + "; COMMIT",
        "SET app.tenant_id = 'std_2'", "SELECT 1/0", "SET app.tenant_id = 'free_1'; ROLLBACK; SELECT 1",
        "BEGIN; SET LOCAL app.tenant_id = 'std_2'; " + READ, "ROLLBACK",
    ],
}  # fmt: skip


def many_interleavings(side: Side) -> None:
    """Of three sessions that do not wait, on one server connection."""
    whose = {USER: "std_1", VICTIM: "std_2", SERVICE: "free_1"}
    asked = _ASKED if side.table == "plain" else _ASKED | {USER: [*_ASKED[USER], BECOME + "; " + READ]}
    for seed in range(12):
        chance = random.Random(seed)
        clients = {who: side.enters(who) for who in asked}
        waited = dict.fromkeys(clients, 0)
        for _ in range(40):
            who = chance.choice(list(clients))
            data = sent(chance.choice(asked[who]), side.table)
            waited[who] += awaited(data)
            clients[who].send(data)
        clients[SERVICE].send(query("ROLLBACK"))
        waited[SERVICE] += 1
        for who, client in clients.items():
            frames = client.read_ready(waited[who]) if waited[who] else []
            only(frames, whose[who], *(["std_1"] if who == SERVICE else []))
            client.close()
        side.untouched()


RACES: dict[str, Race] = {
    race.__name__.replace("_", " "): race
    for race in (
        switches_while_it_pipelines, switches_within_blocks_while_it_pipelines, switches_within_batches,
        cancels_its_own_change, is_cancelled_at_the_change, loses_the_server_at_the_change,
        leaves_within_the_block_of_another, leaves_within_the_change, is_paused_at_the_change,
        loses_the_right_to_its_tenant, is_suspended_within_its_block, is_moved_within_its_block, many_interleavings,
    )
}  # fmt: skip
