from __future__ import annotations

import pytest

from proxy.sql import tree
from proxy.sql.measure import measure
from proxy.sql.vocabulary import STATEMENTS, finder, words_of

# For each name a statement that has it, as PostgreSQL spells it or otherwise.
EXAMPLES = {
    "insert": "INSERT INTO t VALUES (1)",
    "update": "UPDATE t SET x = 1",
    "delete": "WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d",
    "merge": "MERGE INTO t USING u ON true WHEN MATCHED THEN DO NOTHING",
    "truncate": "TRUNCATE t",
    "copy": "COPY t TO STDOUT",
    "copy from": "COPY t FROM STDIN",
    "copy to": "COPY (SELECT 1) TO STDOUT",
    "copy program": "COPY t FROM PROGRAM 'id'",
    "copy file": "COPY t TO '/tmp/x'",
    "lock": "LOCK t",
    "listen": "LISTEN c",
    "unlisten": "UNLISTEN *",
    "notify": "NOTIFY c",
    "vacuum": "VACUUM (ANALYZE) t",
    "analyze": "ANALYSE t",
    "cluster": "CLUSTER t",
    "reindex": "REINDEX TABLE t",
    "checkpoint": "CHECKPOINT",
    "load": "LOAD 'x'",
    "do": "DO 'BEGIN END'",
    "call": "CALL p()",
    "prepare": "PREPARE p AS SELECT 1",
    "execute": "CREATE TABLE x AS EXECUTE p",
    "deallocate": "DEALLOCATE ALL",
    "declare": "DECLARE c CURSOR FOR SELECT 1",
    "discard": "DISCARD ALL",
    "explain": "EXPLAIN SELECT 1",
    "explain analyze": "EXPLAIN (COSTS OFF, ANALYZE) SELECT 1",
    "grant": "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO bob",
    "revoke": "REVOKE admin FROM bob",
    "comment": "COMMENT ON TABLE t IS 'x'",
    "security label": "SECURITY LABEL ON TABLE t IS 'x'",
    "reassign owned": "REASSIGN OWNED BY a TO b",
    "drop owned": "DROP OWNED BY a",
    "import foreign schema": "IMPORT FOREIGN SCHEMA a FROM SERVER s INTO b",
    "refresh materialized view": "REFRESH MATERIALIZED VIEW m",
    "prepare transaction": "PREPARE TRANSACTION 'x'",
    "select into": "SELECT 1 INTO t",
    "select for update": "SELECT * FROM t FOR KEY SHARE",
    "create": "CREATE CAST (a AS b) WITHOUT FUNCTION",
    "alter": "ALTER STATISTICS s SET STATISTICS 1",
    "drop": "DROP USER MAPPING FOR a SERVER b",
    "create table": "SELECT 1 INTO t",
    "create temporary table": 'CREATE TABLE U&"pg\\005ftemp".t (x int)',
    "alter table": "ALTER TABLE t RENAME COLUMN a TO b",
    "alter system": "ALTER SYSTEM SET x = 1",
    "alter default privileges": "ALTER DEFAULT PRIVILEGES REVOKE SELECT ON TABLES FROM bob",
    "drop table": "DROP TABLE a, b",
    "create foreign table": "CREATE FOREIGN TABLE t (x int) SERVER s",
    "alter foreign table": "ALTER FOREIGN TABLE t ADD x int",
    "drop foreign table": "DROP FOREIGN TABLE t",
    "create index": "CREATE UNIQUE INDEX ON t (x)",
    "alter index": "ALTER INDEX ALL IN TABLESPACE a SET TABLESPACE b",
    "drop index": "DROP INDEX CONCURRENTLY i",
    "create view": "CREATE OR REPLACE TEMP VIEW v AS SELECT 1",
    "alter view": "ALTER VIEW v RENAME COLUMN a TO b",
    "drop view": "DROP VIEW v",
    "create materialized view": "CREATE MATERIALIZED VIEW m AS SELECT 1",
    "alter materialized view": "ALTER MATERIALIZED VIEW m RENAME TO n",
    "drop materialized view": "DROP MATERIALIZED VIEW m",
    "create trigger": "CREATE TRIGGER x AFTER INSERT ON t EXECUTE FUNCTION f()",
    "alter trigger": "ALTER TRIGGER x ON t RENAME TO y",
    "drop trigger": "DROP TRIGGER x ON t",
    "create event trigger": "CREATE EVENT TRIGGER x ON ddl_command_end EXECUTE FUNCTION f()",
    "alter event trigger": "ALTER EVENT TRIGGER x DISABLE",
    "drop event trigger": "DROP EVENT TRIGGER x",
    "create schema": "CREATE SCHEMA s",
    "alter schema": "ALTER SCHEMA s OWNER TO a",
    "drop schema": "DROP SCHEMA s CASCADE",
    "create sequence": "CREATE SEQUENCE s",
    "alter sequence": "ALTER SEQUENCE s RESTART",
    "drop sequence": "DROP SEQUENCE s",
    "create type": "CREATE TYPE t AS ENUM ('a')",
    "alter type": "ALTER TYPE t ADD VALUE 'b'",
    "drop type": "DROP TYPE t",
    "create domain": "CREATE DOMAIN d AS int",
    "alter domain": "ALTER DOMAIN d RENAME CONSTRAINT a TO b",
    "drop domain": "DROP DOMAIN d",
    "create extension": "CREATE EXTENSION e",
    "alter extension": "ALTER EXTENSION e ADD TABLE t",
    "drop extension": "DROP EXTENSION e",
    "create database": "CREATE DATABASE d",
    "alter database": "ALTER DATABASE d SET x = 1",
    "drop database": "DROP DATABASE d",
    "create policy": "CREATE POLICY p ON t",
    "alter policy": "ALTER POLICY p ON t RENAME TO q",
    "drop policy": "DROP POLICY p ON t",
    "create rule": "CREATE RULE r AS ON INSERT TO t DO INSTEAD NOTHING",
    "alter rule": "ALTER RULE r ON t RENAME TO q",
    "drop rule": "DROP RULE r ON t",
    "create server": "CREATE SERVER s FOREIGN DATA WRAPPER w",
    "alter server": "ALTER SERVER s OWNER TO a",
    "drop server": "DROP SERVER s",
    "create publication": "CREATE PUBLICATION p",
    "alter publication": "ALTER PUBLICATION p SET TABLE t",
    "drop publication": "DROP PUBLICATION p",
    "create subscription": "CREATE SUBSCRIPTION s CONNECTION 'x' PUBLICATION p",
    "alter subscription": "ALTER SUBSCRIPTION s DISABLE",
    "drop subscription": "DROP SUBSCRIPTION s",
    "create tablespace": "CREATE TABLESPACE t LOCATION '/x'",
    "alter tablespace": "ALTER TABLESPACE t SET (a = 1)",
    "drop tablespace": "DROP TABLESPACE t",
    "create language": "CREATE TRUSTED LANGUAGE l HANDLER h",
    "alter language": "ALTER LANGUAGE l OWNER TO a",
    "drop language": "DROP LANGUAGE l",
    "create function": "CREATE FUNCTION f() RETURNS int LANGUAGE sql RETURN 1",
    "alter function": "ALTER ROUTINE f() RENAME TO g",
    "drop function": "DROP ROUTINE f()",
    "create procedure": "CREATE PROCEDURE p() LANGUAGE sql AS ''",
    "alter procedure": "ALTER PROCEDURE p() SET x = 1",
    "drop procedure": "DROP ROUTINE p()",
    "create role": "CREATE GROUP g",
    "alter role": "ALTER USER u PASSWORD 'x'",
    "drop role": "DROP USER u",
}


def test_every_name_has_an_example() -> None:
    assert EXAMPLES.keys() == STATEMENTS.keys()


@pytest.mark.parametrize(("name", "sql"), EXAMPLES.items())
def test_an_example_is_called_so_and_its_words_are_found(name: str, sql: str) -> None:
    tree.parse(sql.encode())  # or it is no SQL
    assert name in measure(sql.encode()).names
    low = sql.encode().lower()
    assert finder(frozenset({name}))(low)
    assert words_of(frozenset({name})).found(low) == name


@pytest.mark.parametrize("sql", [*EXAMPLES.values(), "CREATE LANGUAGE l"])
def test_no_search_misses_what_the_tree_says(sql: str) -> None:
    low = sql.encode().lower()
    for name in measure(sql.encode()).names & STATEMENTS.keys():
        assert finder(frozenset({name}))(low), name
        assert words_of(frozenset({name})).found(low), name


@pytest.mark.parametrize(
    ("name", "sql"),
    [
        ("insert", "SELECT 'insert'"),
        ("copy from", "COPY t TO STDOUT"),
        ("copy program", "COPY t TO 'program'"),
        ("drop table", "ALTER TABLE t DROP COLUMN c"),
        ("drop", "ALTER TABLE t DROP COLUMN c"),
        ("create table", "CREATE INDEX ON t (x)"),
        ("create temporary table", "CREATE TABLE t (x int)"),
        ("update", "INSERT INTO t VALUES (1) ON CONFLICT (x) DO UPDATE SET x = 1"),
        ("do", "INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING"),
        ("explain analyze", "EXPLAIN SELECT 1"),
        ("alter table", "ALTER VIEW v RENAME COLUMN a TO b"),
        ("prepare", "PREPARE TRANSACTION 'x'"),
        ("grant", "REVOKE SELECT ON t FROM bob"),
        ("create function", "CREATE PROCEDURE p() LANGUAGE sql AS ''"),
    ],
)
def test_what_only_looks_so_is_not_called_so(name: str, sql: str) -> None:
    tree.parse(sql.encode())
    assert name not in measure(sql.encode()).names


@pytest.mark.parametrize("low", [b"select updated_at, do_it, x1lock1 from locks", b"select 1", b""])
def test_a_word_is_not_found_within_another(low: bytes) -> None:
    names = frozenset({"update", "do", "lock"})
    assert not finder(names)(low)
    assert words_of(names).found(low) == ""


@pytest.mark.parametrize("low", [b"1lock t", b"/**/lock/**/t", b";lock", "élock".encode()])
def test_what_stands_before_a_keyword_does_not_hide_it(low: bytes) -> None:
    assert finder(frozenset({"lock"}))(low)


def test_nothing_is_found_where_nothing_is_looked_for() -> None:
    assert not finder(frozenset())(b"drop table t")
    assert words_of(frozenset()).found(b"drop table t") == ""
