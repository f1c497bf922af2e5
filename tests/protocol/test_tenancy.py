from __future__ import annotations

import pytest

from proxy.errors import FailedTransaction, UnknownSavepoint
from proxy.model import Tenant
from proxy.protocol.tenancy import Block, Tenancy, nobody
from proxy.sql.opening import opening
from proxy.sql.steps import Step

HOME, ONE, TWO = (Tenant(name, "standard", "shared") for name in ("home", "one", "two"))


def step(text: str) -> Step:
    found = opening(text.encode(), "app.tenant_id")
    assert found is not None
    assert found.sole is not None
    return found.sole


def do(tenancy: Tenancy, *texts: str) -> str:
    """The types of what was said last."""
    said = b""
    for text in texts:
        said = tenancy.control(step(text))
    return chr(said[0])


def test_a_name_lasts_if_the_transaction_does() -> None:
    tenancy = Tenancy(HOME)
    for committed, own in ((False, HOME), (True, ONE)):
        tenancy.begin()
        tenancy.name(ONE, local=False)
        assert (tenancy.value, tenancy.own, tenancy.returns) == (ONE, own if own is HOME else HOME, True)
        tenancy.end(committed)
        assert (tenancy.value, tenancy.own, tenancy.open) == (own, own, False)


def test_a_local_name_is_gone_with_the_transaction() -> None:
    tenancy = Tenancy(HOME)
    do(tenancy, "BEGIN")
    tenancy.name(TWO, local=False)
    tenancy.name(ONE, local=True)
    assert tenancy.value is ONE
    do(tenancy, "COMMIT")
    assert tenancy.value is tenancy.own is TWO
    assert not tenancy.returns


def test_names_go_back_with_a_savepoint() -> None:
    tenancy = Tenancy(HOME)
    do(tenancy, "BEGIN")
    tenancy.name(ONE, local=True)
    do(tenancy, "SAVEPOINT a", "SAVEPOINT b")
    tenancy.name(TWO, local=False)
    do(tenancy, "ROLLBACK TO a")
    assert (tenancy.value, tenancy.lasting) == (ONE, HOME)
    assert tenancy.begins == [b"BEGIN", b"SAVEPOINT a"]
    do(tenancy, "RELEASE a")
    assert tenancy.begins == [b"BEGIN"]
    with pytest.raises(UnknownSavepoint):
        do(tenancy, "RELEASE a")


def test_the_latest_of_savepoints_with_one_name_is_meant() -> None:
    tenancy = Tenancy(HOME)
    do(tenancy, "BEGIN", "SAVEPOINT a")
    tenancy.name(ONE, local=True)
    do(tenancy, "SAVEPOINT a")
    tenancy.name(TWO, local=True)
    do(tenancy, "ROLLBACK TO a")
    assert tenancy.value is ONE
    do(tenancy, "RELEASE a", "ROLLBACK TO a")
    assert tenancy.value is HOME


def test_a_failed_block() -> None:
    tenancy = Tenancy(HOME)
    do(tenancy, "BEGIN", "SAVEPOINT a")
    tenancy.name(ONE, local=False)
    tenancy.fail()
    assert tenancy.status == b"E"
    assert tenancy.begins == []
    for text in ("BEGIN", "SAVEPOINT b", "SET TRANSACTION READ ONLY", "RELEASE a"):
        with pytest.raises(FailedTransaction):
            do(tenancy, text)
    do(tenancy, "ROLLBACK TO a")
    assert tenancy.status == b"T"
    assert tenancy.value is HOME
    tenancy.fail()
    assert tenancy.control(step("COMMIT")).endswith(b"ROLLBACK\0")
    assert tenancy.status == b"I"
    assert tenancy.own is HOME


def test_what_a_server_is_told() -> None:
    tenancy = Tenancy(HOME)
    assert tenancy.begins == []
    do(
        tenancy,
        "BEGIN -- now",
        "SET TRANSACTION READ ONLY",
        "BEGIN",
        "BEGIN ISOLATION LEVEL SERIALIZABLE",
        "SAVEPOINT x",
    )
    assert tenancy.begins == [
        b"BEGIN -- now", b"SET TRANSACTION READ ONLY", b"BEGIN ISOLATION LEVEL SERIALIZABLE", b"SAVEPOINT x",
    ]  # fmt: skip
    assert not tenancy.can(step("SET TRANSACTION READ WRITE"))
    tenancy.served()
    assert tenancy.block is Block.SERVED
    assert tenancy.begins == []
    assert tenancy.status == b"I"


def test_warnings() -> None:
    tenancy = Tenancy(HOME)
    assert do(tenancy, "COMMIT") == do(tenancy, "ROLLBACK") == do(tenancy, "SET TRANSACTION READ ONLY") == "N"
    assert do(tenancy, "BEGIN") == "C"
    assert do(tenancy, "BEGIN") == "N"
    for text in ("SAVEPOINT a", "RELEASE a", "ROLLBACK TO a"):
        assert tenancy.can(step(text))
        assert not Tenancy(HOME).can(step(text))


def test_a_reset_of_everything_shows_at_the_end() -> None:
    tenancy = Tenancy(HOME)
    tenancy.begin()
    tenancy.name(ONE, local=False)
    tenancy.end(True)
    for committed, own in ((False, ONE), (True, HOME)):
        tenancy.go_home()
        assert tenancy.value is ONE
        assert tenancy.returns
        tenancy.end(committed)
        assert tenancy.value is own
    tenancy.go_home_now()
    assert tenancy.own is HOME


def test_tenants_are_renewed() -> None:
    tenancy = Tenancy(HOME)
    do(tenancy, "BEGIN", "SAVEPOINT a")
    tenancy.name(ONE, local=True)
    new = {"home": Tenant("home", "vip", "vip-1"), "one": Tenant("one", "vip", "vip-1")}
    tenancy.renew(new.get)
    assert (tenancy.own, tenancy.value) == (new["home"], new["one"])
    do(tenancy, "ROLLBACK TO a")
    assert tenancy.value is new["home"]
    tenancy.renew({}.get)
    assert tenancy.home is new["home"]


def test_nobody_has_no_name() -> None:
    assert not nobody("shared").name
