from proxy.protocol.statements import Catalog, Prepared
from proxy.sql.verdict import PLAIN


def test_the_same_content_is_the_same_statement() -> None:
    catalog = Catalog()
    one = catalog.statement(b"SELECT 1", b"\0\0", PLAIN)
    assert catalog.statement(b"SELECT 1", b"\0\0", PLAIN) is one
    assert catalog.statement(b"SELECT 1", b"\0\1\0\0\0\x17", PLAIN) is not one
    assert catalog.statement(b"SELECT 2", b"\0\0", PLAIN).name != one.name


def test_nobody_holds_it_nobody_knows_it() -> None:
    catalog = Catalog()
    catalog.statement(b"SELECT 1", b"\0\0", PLAIN)
    assert len(catalog) == 0


def test_a_retired_statement_gets_a_successor_with_another_name() -> None:
    catalog = Catalog()
    old = catalog.statement(b"SELECT * FROM t", b"\0\0", PLAIN)
    catalog.retire(old)
    new = catalog.statement(b"SELECT * FROM t", b"\0\0", PLAIN)
    assert new is not old
    assert new.name != old.name
    catalog.retire(old)
    assert catalog.statement(b"SELECT * FROM t", b"\0\0", PLAIN) is new


def test_least_recently_used_goes_first() -> None:
    catalog, prepared = Catalog(), Prepared(2)
    a, b, c = (catalog.statement(text, b"\0\0", PLAIN) for text in (b"a", b"b", b"c"))
    assert prepared.add(a) == []
    assert prepared.add(b) == []
    prepared.use(a)
    assert prepared.add(c) == [b]
    assert a in prepared
    assert b not in prepared
    prepared.remove(a)
    assert len(prepared) == 1
    assert not prepared.use(a)
    assert prepared.use(c)
    assert prepared.use(c)
    prepared.clear()
    assert not prepared.use(c)


def test_a_text_of_another_meaning_is_another_statement() -> None:
    catalog = Catalog()
    one = catalog.statement(b"SELECT * FROM t", b"\0\0", PLAIN, (0, "a"))
    others = [
        catalog.statement(b"SELECT * FROM t", b"\0\0", PLAIN, meaning) for meaning in ((1, "a"), (0, "b"))
    ]
    assert len({one, *others}) == len({one.name, *(other.name for other in others)}) == 3
    catalog.retire(others[0])
    assert catalog.statement(b"SELECT * FROM t", b"\0\0", PLAIN, (0, "a")) is one
    assert catalog.statement(b"SELECT * FROM t", b"\0\0", PLAIN, (1, "a")) is not others[0]


def test_databases_have_schemas_of_their_own() -> None:
    catalog = Catalog()
    schema = catalog.schema("shared", "erp")
    assert catalog.schema("shared", "erp") is schema
    assert catalog.schema("shared", "other") is not schema
