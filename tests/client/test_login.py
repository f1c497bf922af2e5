"""What a client says at its login, and what the proxy makes of it: version, user, tenant, console."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Iterator
from dataclasses import replace
from time import monotonic

import pytest

from proxy.errors import CapReached, ServerRefused
from proxy.model import User
from proxy.registry.cache import Cache
from proxy.registry.rows import Row
from proxy.registry.sources import StoreState
from proxy.wire import encode
from tests.client.gate import ACME_ID, DIRECTORY, OPTIONS, Gate, gate
from tests.rawclient import Closed, Frame, RawClient, ServerError, frame, startup


@pytest.fixture(scope="module")
def shared_gate() -> Iterator[Gate]:
    with gate() as running:
        yield running


@pytest.fixture
def door(shared_gate: Gate) -> Gate:
    shared_gate.failure = None
    shared_gate.logins.clear()
    return shared_gate


def refused(door: Gate, user: str, password: str = "app-secret", database: str = "db", **said: str) -> str:
    """The SQLSTATE of a login that fails; it is FATAL, and the connection is closed."""
    client = door.client()
    with pytest.raises(ServerError) as caught:
        client.log_in(user, database, password, parameters=said)
    assert caught.value.fields["S"] == caught.value.fields["V"] == "FATAL"
    assert client.read_to_eof() == []
    client.hang_up()
    assert not door.logins
    return caught.value.fields["C"]


# --- who it is --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("user", "password", "request_code"),
    [
        ("app", "app-secret", 10),
        ("hashed", "hashed-secret", 5),
        ("open", "open-secret", 3),
        ("trusted", "", 0),
    ],
)
def test_each_user_by_its_own_method(door: Gate, user: str, password: str, request_code: int) -> None:
    client = door.client()
    client.log_in(f"{user}@acme", "db", password)
    kind, body = client.welcome[0]
    assert (kind, struct.unpack_from("!I", body)[0]) == ("R", request_code)
    login = door.logins[-1]
    assert (login.user.name, login.database, login.tls) == (user, "db", False)
    assert login.tenant is not None
    assert login.tenant.name == "acme"
    assert door.addresses[-1] == "{}:{}".format(*client.sock.getsockname())


@pytest.mark.parametrize("user", ["app", "hashed", "open", "nobody"])
def test_a_wrong_password_and_an_unknown_user_are_told_the_same(door: Gate, user: str) -> None:
    client = door.client()
    with pytest.raises(ServerError) as caught:
        client.log_in(f"{user}@acme", "db", "wrong")
    fields = caught.value.fields
    assert fields["C"] == "28P01"
    assert fields["M"] == f'password authentication failed for user "{user}"'
    assert set(fields) == {"S", "V", "C", "M"}
    assert not door.logins


def test_who_is_not_known_is_not_trusted(door: Gate) -> None:
    with gate(replace(OPTIONS, auth_type="trust")) as trusting:
        assert refused(trusting, "nobody@acme") == "28000"
        assert trusting.log_in("app@acme").user.name == "app"


def test_without_a_user_name_nobody_is_let_in(door: Gate) -> None:
    for said in ({}, {"user": ""}, {"database": "db"}):
        client = door.client()
        client.send(startup(said))
        with pytest.raises(ServerError) as caught:
            client.authenticate("", "")
        assert caught.value.fields["C"] == "28000"


def test_the_database_is_the_users_name_where_none_is_said(door: Gate) -> None:
    assert door.log_in("app@acme", "app-secret").database == "app"


# --- which tenant -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("user", "said"),
    [
        ("app@acme", {}),
        ("app", {"options": "-c app.tenant_id=acme"}),
        ("app", {"options": "--app.tenant_id=acme"}),
        ("app", {"app.tenant_id": "acme"}),
        ("app", {"App.Tenant_ID": "acme"}),
        ("app", {"app.tenant_id": ACME_ID}),
        ("app", {"app.tenant_id": ACME_ID.upper()}),
        ("app@acme", {"app.tenant_id": ACME_ID, "options": "-c app.tenant_id=acme"}),
        ("bound", {"app.tenant_id": ACME_ID}),
        ("bound", {}),
        ("two@acme", {}),
        ("at@acme@acme", {}),
    ],
)
def test_ways_to_name_the_tenant(door: Gate, user: str, said: dict[str, str]) -> None:
    name = "at@acme" if user.startswith("at@") else user.partition("@")[0]
    password = "at-secret" if name == "at@acme" else f"{name}-secret"
    login = door.log_in(user, password, "db", **said)
    assert (login.user.name, login.tenant and login.tenant.name) == (name, "acme")
    assert not [key for key in login.asked.parameters if key.lower() == "app.tenant_id"]


@pytest.mark.parametrize(
    ("user", "said", "sqlstate"),
    [
        ("app@nowhere", {}, "3D000"),
        ("app", {"app.tenant_id": "nowhere"}, "3D000"),
        ("app@acme", {"app.tenant_id": "beta"}, "28000"),
        ("app@acme", {"options": "-c app.tenant_id=nowhere"}, "28000"),
        ("app@asleep", {}, "28000"),
        ("bound@beta", {}, "28000"),
        ("bound@nowhere", {}, "28000"),
        ("two@asleep", {}, "28000"),
    ],
)
def test_a_tenant_is_refused_only_to_those_who_have_authenticated(
    door: Gate, user: str, said: dict[str, str], sqlstate: str
) -> None:
    """Strangers learn nothing: with a wrong password the answer is always the same."""
    password = f"{user.partition('@')[0]}-secret"
    assert refused(door, user, password, **said) == sqlstate
    assert refused(door, user, "wrong", **said) == "28P01"
    assert refused(door, user.replace("app", "nobody"), "wrong", **said) == "28P01"


@pytest.mark.parametrize(
    ("user", "said"), [("app", {}), ("app", {"app.tenant_id": ""}), ("two", {}), ("at@acme", {})]
)
def test_who_names_no_tenant_may_choose_one(door: Gate, user: str, said: dict[str, str]) -> None:
    login = door.log_in(user, "at-secret" if user == "at@acme" else f"{user}-secret", "db", **said)
    assert login.chooses
    assert login.tenant is not None
    assert (login.tenant.name, login.tenant.cluster) == ("", "shared")


@pytest.mark.parametrize("user", ["app@acme", "bound", "bound@acme"])
def test_who_has_one_may_not(door: Gate, user: str) -> None:
    assert not door.log_in(user, f"{user.partition('@')[0]}-secret", "db").chooses


def test_nor_where_no_session_may(door: Gate) -> None:
    with gate(replace(OPTIONS, identify=("startup", "user"))) as strict:
        assert refused(strict, "app") == refused(strict, "two", "two-secret") == "28000"
    with gate(replace(OPTIONS, identify=("user",), default_tenant="beta")) as strict:
        assert not strict.log_in("app", "app-secret").chooses
    with gate(replace(OPTIONS, default_tenant="beta")) as free:
        assert free.log_in("app", "app-secret").chooses
        assert not free.log_in("app", "app-secret", replication="true").chooses


def test_a_replication_connection_cannot_choose(door: Gate) -> None:
    assert refused(door, "app", replication="database") == "28000"


def test_a_bound_user_cannot_find_out_which_tenants_exist(door: Gate) -> None:
    texts = []
    for tenant in ("beta", "nowhere"):
        with pytest.raises(ServerError) as caught:
            door.log_in(f"bound@{tenant}", "bound-secret", "db")
        texts.append({key: text.replace(tenant, "?") for key, text in caught.value.fields.items()})
    assert texts[0] == texts[1]


def test_md5_with_a_tenant_in_the_name_needs_the_password_itself(door: Gate) -> None:
    """A client digests the name that it said, so a stored digest of the user's own name does not fit."""
    assert door.log_in("hashed", "hashed-secret", "db", **{"app.tenant_id": "acme"}).user.name == "hashed"
    assert door.log_in("hashed@acme", "hashed-secret", "db").user.name == "hashed"
    assert door.log_in("digest", "digest-secret", "db", **{"app.tenant_id": "acme"}).user.name == "digest"
    door.logins.clear()
    assert refused(door, "digest@acme", "digest-secret") == "28P01"


def test_a_tenant_that_is_suspended(door: Gate) -> None:
    door.registry.disable("tenant", "beta")
    try:
        assert refused(door, "app@beta") == "28000"
        assert door.log_in("app@acme", "app-secret").tenant is not None
    finally:
        door.registry.enable("tenant", "beta")
    assert door.log_in("app@beta", "app-secret").tenant is not None


def test_the_default_tenant_is_for_those_who_name_none() -> None:
    with gate(replace(OPTIONS, default_tenant="beta")) as door:
        for user, password, tenant in (
            ("app", "app-secret", "beta"),
            ("app@acme", "app-secret", "acme"),
            ("bound", "bound-secret", "acme"),  # may act for this one only
        ):
            login = door.log_in(user, password)
            assert login.tenant is not None
            assert login.tenant.name == tenant


# --- who says the same again ------------------------------------------------------------------------


def test_who_says_the_same_is_the_same_login(door: Gate) -> None:
    first, again = (door.log_in("app@acme", "app-secret", "db", work_mem="8MB") for _ in range(2))
    assert again is first
    assert door.log_in("app@acme", "app-secret", "db", work_mem="9MB") is not first
    assert refused_again(door, "app@acme", "wrong") == "28P01"


def refused_again(door: Gate, user: str, password: str, **said: str) -> str:
    door.logins.clear()
    return refused(door, user, password, **said)


def test_a_change_of_the_registry_is_seen_by_who_is_known() -> None:
    with gate() as door:
        assert door.log_in("app@acme", "app-secret", "db").user.name == "app"
        users = {**DIRECTORY.users, "app": User("app", "another-secret", frozenset({"beta"}))}
        door.registry.replace(replace(DIRECTORY, users=users), OPTIONS)
        assert refused_again(door, "app@acme", "app-secret") == "28P01"
        assert refused(door, "app@acme", "another-secret") == "28000"
        assert door.log_in("app@beta", "another-secret", "db").user.name == "app"


def test_a_change_during_the_proof_is_seen_too() -> None:
    with gate() as door:
        door.log_in("open@acme", "open-secret", "db")
        client = door.client()
        client.send(startup({"user": "open@acme", "database": "db"}))
        first_frames(client)
        door.registry.disable("tenant", "acme")
        client.send(frame("p", b"open-secret\0"))
        with pytest.raises(Closed, match="suspended"):
            client.read_ready()


def test_what_strangers_say_is_not_remembered(door: Gate) -> None:
    before = len(door.acceptor._familiar)
    for number in range(3):
        assert refused(door, "app@acme", "wrong", work_mem=f"{number}MB") == "28P01"
    assert refused(door, "trusted@nowhere", "") == "3D000"
    assert len(door.acceptor._familiar) == before


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.client.accept._REMEMBERED", 2)
    with gate() as door:
        for name in ("a", "b", "c", "x" * 600):
            door.log_in("trusted@acme", "", "db", application_name=name)
        familiar = door.acceptor._familiar
        assert [packet[-3:] for packet in familiar] == [b"b\0\0", b"c\0\0"]


FAR = Row(
    "0b5a1d5e-6f0f-4f0e-9a53-0d5f2a1c7e99", "far", "standard", "shared_pool",
    cluster_name=DIRECTORY.tenants["acme"].cluster,
)  # fmt: skip


class Far:
    """A store that has one tenant, and may be down."""

    def __init__(self, door: Gate) -> None:
        self.door = door
        self.up = True
        self.asked: list[str] = []
        self.rows = door.registry.rows = Cache(10, 60.0, 60.0)
        door.registry.finder = self

    def stores(self) -> list[StoreState]:
        return []

    async def find(self, name: str) -> None:
        self.asked.append(name)
        await asyncio.sleep(0)
        if not self.up:
            self.rows.put_unasked(name, monotonic())
        elif name == "far":
            self.door.registry.take(FAR)
        else:
            self.rows.put_absent(name, monotonic())


@pytest.fixture
def far() -> Iterator[Far]:
    with gate() as running:
        yield Far(running)


def test_a_tenant_that_the_registry_has_to_fetch(far: Far) -> None:
    """What is sent meanwhile is kept."""
    door = far.door
    for user, password in (("trusted@far", b""), ("open@far", b"open-secret")):
        client = door.client()
        opening = startup({"user": user, "database": "db"})
        client.send(opening + (frame("p", password + b"\0") if password else b"") + frame("Q", b"who\0"))
        kinds = [found.kind for found in client.read_ready(2)]
        assert kinds[-3:] == ["D", "C", "Z"]
        assert door.logins[-1].tenant is door.registry.known("far")
    assert refused_again(door, "trusted@nowhere", "") == "3D000"
    assert far.asked == ["far", "nowhere"]


def test_a_login_that_is_remembered_is_not_that_of_a_tenant_that_has_changed(far: Far) -> None:
    door = far.door
    first = door.log_in("trusted@far", "", "db").tenant
    assert door.log_in("trusted@far", "", "db").tenant is first
    door.registry.take(replace(FAR, max_connections=3))
    second = door.log_in("trusted@far", "", "db").tenant
    assert second is not None
    assert second.limits.max_connections == 3


def test_when_nobody_can_be_asked_a_name_that_is_not_known_may_exist(far: Far) -> None:
    door = far.door
    assert door.log_in("trusted@far", "", "db").tenant is not None
    far.up = False
    assert door.log_in("trusted@far", "", "db").tenant is not None
    conflicting = {"options": "-c app.tenant_id=far"}
    assert refused_again(door, "trusted@nowhere", "") == "57P03"
    assert refused_again(door, "trusted@elsewhere", "", **conflicting) == "57P03"  # that may be its id
    far.up = True
    assert refused_again(door, "trusted@acme", "", **conflicting) == "28000"


# --- parameters -------------------------------------------------------------------------------------


def test_parameters_are_those_of_the_session(door: Gate) -> None:
    said = {
        "options": "-c work_mem=8MB -c search_path=a\\ b --app.tenant_id=acme",
        "application_name": "tëst",
        "TimeZone": "UTC",
    }
    login = door.log_in("app", "app-secret", "db", **said)
    assert login.asked.parameters == {
        "work_mem": "8MB",
        "search_path": "a b",
        "application_name": "tëst",
        "TimeZone": "UTC",
    }
    assert login.replication == ""


def test_a_parameter_of_its_own_goes_before_one_in_options(door: Gate) -> None:
    login = door.log_in("app@acme", "app-secret", "db", options="-c work_mem=8MB", work_mem="9MB")
    assert login.asked.parameters == {"work_mem": "9MB"}


def test_options_that_postgresql_would_refuse(door: Gate) -> None:
    for options in ("-c work_mem", "--x", "word", "-Z"):
        assert refused(door, "app@acme", options=options) == "42601"


@pytest.mark.parametrize(
    ("said", "understood"),
    [("database", "database"), ("true", "true"), ("on", "on"), ("false", ""), ("0", ""), ("OFF", "")],
)
def test_replication(door: Gate, said: str, understood: str) -> None:
    assert door.log_in("app@acme", "app-secret", "db", replication=said).replication == understood


# --- protocol versions ------------------------------------------------------------------------------


def first_frames(client: RawClient) -> list[Frame]:
    return client.read_until("R")


@pytest.mark.parametrize(
    ("minor", "options", "answer", "agreed"),
    [
        (0, (), None, 0),
        (2, (), None, 2),
        (9, (), (0x30002, []), 2),
        (9999, (), (0x30002, []), 2),
        (0, ("_pq_.x",), (0x30000, ["_pq_.x"]), 0),
        (2, ("_pq_.x", "_pq_.y"), (0x30002, ["_pq_.x", "_pq_.y"]), 2),
        (3, ("_pq_.x",), (0x30002, ["_pq_.x"]), 2),
    ],
)
def test_versions_and_protocol_options_are_negotiated(
    door: Gate, minor: int, options: tuple[str, ...], answer: tuple[int, list[str]] | None, agreed: int
) -> None:
    client = door.client()
    said = {"user": "trusted@acme", "database": "db", **dict.fromkeys(options, "1")}
    client.send(startup(said, 0x30000 | minor))
    frames = client.read_ready()
    if answer is None:
        assert frames[0].kind == "R"
    else:
        version, count = struct.unpack_from("!II", frames[0].body)
        names = frames[0].body[8:].split(b"\0")[:-1]
        assert (frames[0].kind, version, [name.decode() for name in names]) == ("v", *answer)
        assert count == len(names)
        assert frames[1].kind == "R"
    assert door.logins[-1].protocol_minor == agreed
    assert not [key for key in door.logins[-1].asked.parameters if key.startswith("_pq_")]


@pytest.mark.parametrize("version", [0x20000, 0x40000, 0, 0xFFFFFFFF])
def test_another_major_version_is_refused(door: Gate, version: int) -> None:
    client = door.client()
    client.send(startup({"user": "app"}, version))
    with pytest.raises(ServerError, match="unsupported frontend protocol") as caught:
        client.authenticate("", "")
    assert caught.value.fields["C"] == "0A000"


# --- the console ------------------------------------------------------------------------------------


@pytest.mark.parametrize("database", ["tiergate", "pgbouncer"])
def test_the_console_is_for_its_users_only(door: Gate, database: str) -> None:
    for user in ("admin", "watcher"):
        login = door.log_in(user, f"{user}-secret", database)
        assert login.is_console
        assert login.tenant is None
    door.logins.clear()
    assert refused(door, "app@acme", "app-secret", database) == "28000"
    assert refused(door, "app", "wrong", database) == "28P01"
    assert refused(door, "admin", "wrong", database) == "28P01"
    assert not door.log_in("admin@acme", "admin-secret", "db").is_console


# --- what comes in the middle -----------------------------------------------------------------------


def test_messages_of_another_kind_are_no_answer(door: Gate) -> None:
    for said in (frame("Q", b"SELECT 1\0"), frame("S"), frame("\0", b"x")):
        client = door.client()
        client.send(startup({"user": "app@acme"}))
        first_frames(client)
        client.send(said)
        with pytest.raises(ServerError, match="expected password response") as caught:
            client.authenticate("", "")
        assert caught.value.fields["C"] == "08P01"
        assert client.read_to_eof() == []


@pytest.mark.parametrize("length", [0, 3, 65_537, 0x7FFFFFFF, 0xFFFFFFFF])
def test_impossible_lengths_are_refused_at_once(door: Gate, length: int) -> None:
    client = door.client()
    client.send(startup({"user": "app@acme"}))
    first_frames(client)
    client.send(b"p" + struct.pack("!I", length))
    with pytest.raises(ServerError, match="invalid message length") as caught:
        client.authenticate("", "")
    assert caught.value.fields["C"] == "08P01"


def test_a_password_as_long_as_a_message_may_be(door: Gate) -> None:
    assert refused(door, "open@acme", "x" * 65_000) == "28P01"


def test_an_answer_cut_at_every_byte(door: Gate) -> None:
    client = door.client()
    opening = startup({"user": "open@acme", "database": "db"}) + frame("p", b"open-secret\0")
    client.send_in_pieces(bytes([byte]) for byte in opening)
    assert [found.kind for found in client.read_ready()][:2] == ["R", "R"]


def test_what_is_sent_behind_the_password_is_not_lost(door: Gate) -> None:
    client = door.client()
    opening = startup({"user": "open@acme", "database": "db"}) + frame("p", b"open-secret\0")
    client.send(opening + frame("Q", b"who\0"))
    frames = client.read_ready(2)
    assert [found.kind for found in frames if found.kind in "TDC"] == ["T", "D", "C"]


def test_a_client_that_leaves_at_any_point_is_forgotten(door: Gate) -> None:
    opening = startup({"user": "open@acme", "database": "db"})
    for said in (b"", opening[:3], opening[:8], opening[:20], opening, opening + b"p\0\0"):
        for leave in ("hang_up", "reset"):
            client = door.client()
            client.send(said)
            if said.startswith(opening):
                first_frames(client)
            getattr(client, leave)()
    door.nobody_pending()
    assert not door.logins


# --- what comes after -------------------------------------------------------------------------------


def test_an_error_behind_the_login_is_said(door: Gate) -> None:
    own = encode.error("the server's own", "55000", severity="FATAL", detail="as it was sent")
    for failure, sqlstate in (
        (CapReached("full"), "53300"),
        (ServerRefused("the server's own", "55000", own), "55000"),
        (KeyError("a bug"), "XX000"),
    ):
        door.failure = failure
        with pytest.raises(ServerError) as caught:
            door.log_in("trusted@acme")
        assert caught.value.fields["C"] == sqlstate
        if isinstance(failure, KeyError):
            assert caught.value.fields["M"] == "internal error"
        if isinstance(failure, ServerRefused):
            assert caught.value.fields["D"] == "as it was sent"


def test_an_error_reaches_a_client_that_is_still_sending(door: Gate) -> None:
    """Closing a socket with unread bytes resets it; the error must be out before that."""
    for _ in range(10):
        client = door.client()
        client.send(startup({"user": "nobody@acme"}))
        first_frames(client)
        with contextlib.suppress(OSError):  # it may be closed by now
            client.send(frame("Q", b"x" * 60_000) + bytes(2_000_000))
        try:
            found = client.read()
        except Closed:
            raise AssertionError("the error was lost") from None
        assert found.kind == "E"
        client.hang_up()
