"""What a session may do in one step, and how it says so."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import strategies as st

from tests.rawclient import SYNC, bind, close, describe, execute, parse, query

BOUND, SERVICE = "bound", "service"


class Step(NamedTuple):
    """`way`: each text a Query, all in one Query (text), each by messages (extended), or all in one batch. `values` are
    bound to the only text. `name`: of a statement that is prepared by message."""

    kind: str
    texts: tuple[str, ...] = ()
    way: str = "simple"
    values: tuple[str | None, ...] = ()
    name: str = ""

    @property
    def alone(self) -> bool:
        return self.way not in ("text", "batch")

    @property
    def requests(self) -> list[bytes]:
        """Each is answered by one ReadyForQuery."""
        if self.way == "simple":
            return [query(text) for text in self.texts]
        if self.way == "text":
            return [query("; ".join(self.texts))]
        if self.way == "parse":
            return [parse(self.texts[0], self.name) + describe("S", self.name) + SYNC]
        if self.way == "bind":
            return [bind(name=self.name) + execute() + SYNC]
        if self.way == "close":
            return [close("S", self.name) + SYNC]
        asked = [parse(text) + bind(list(self.values)) + describe("P") + execute() for text in self.texts]
        return [b"".join(asked) + SYNC] if self.way == "batch" else [each + SYNC for each in asked]


PARAMETERS = {
    "work_mem": ("1MB", "2MB", "64kB"),
    "TimeZone": ("UTC", "Asia/Tokyo"),
    "DateStyle": ("German", "ISO, MDY"),
    "search_path": ("public", "pg_catalog, public"),
    "statement_timeout": ("0", "50s"),
    "application_name": ("one", "two"),
    "extra_float_digits": ("0", "3"),
    "enable_seqscan": ("off", "on"),
    "default_transaction_isolation": ("repeatable read", "read committed"),
    "default_transaction_read_only": ("on", "off"),
    "bytea_output": ("escape", "hex"),
    "client_encoding": ("LATIN1", "UTF8"),
    "own.note": ("x", "y"),
}
NAMES = [*PARAMETERS, "role"]
_SHOWN = ", ".join(f"coalesce(current_setting('{name}', true), '')" for name in (*NAMES, "app.tenant_id"))
SHOW = f"SELECT current_user, {_SHOWN}"
READ = "SELECT current_setting('app.tenant_id', true), count(*), min(tenant_id), max(tenant_id) FROM ledger"
LEFT = (
    SHOW,
    "SELECT name, setting FROM pg_settings WHERE name NOT LIKE '%.%' ORDER BY name",
    "SELECT name FROM pg_prepared_statements ORDER BY name",
    "SELECT name FROM pg_cursors ORDER BY name",
    "SELECT pg_listening_channels() ORDER BY 1",
    "SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() ORDER BY 1",
    "SELECT relname FROM pg_class WHERE relnamespace = pg_my_temp_schema() ORDER BY 1",
)


def _settings() -> st.SearchStrategy[str]:
    def with_value(name: str) -> st.SearchStrategy[str]:
        return st.builds(
            "{} {} = '{}'".format,
            st.sampled_from(["SET", "SET", "SET LOCAL"]),
            st.just(name),
            st.sampled_from(PARAMETERS[name]),
        )

    return st.sampled_from(list(PARAMETERS)).flatmap(with_value)


def _bound_settings() -> st.SearchStrategy[Step]:
    def with_value(name: str) -> st.SearchStrategy[Step]:
        return st.builds(
            lambda value, local: Step(
                "config", (f"SELECT set_config('{name}', $1, $2)",), "extended", (value, local)
            ),
            st.sampled_from(PARAMETERS[name]),
            st.sampled_from(["f", "f", "t"]),
        )

    return st.sampled_from(list(PARAMETERS)).flatmap(with_value)


# Kinds of texts that may stand with others in one text or batch.
TEXTS: dict[str, st.SearchStrategy[str]] = {
    "set": _settings(),
    "reset": st.sampled_from([f"RESET {name}" for name in NAMES] + [f"SET {name} TO DEFAULT" for name in PARAMETERS]),
    "show": st.sampled_from([f"SHOW {name}" for name in PARAMETERS if "." not in name] + [SHOW, READ]),
    "role": st.sampled_from(["SET ROLE app_reader", "SET ROLE NONE", "RESET ROLE", "SET LOCAL ROLE app_reader"]),
    "characteristics": st.sampled_from(
        [f"SET SESSION CHARACTERISTICS AS TRANSACTION {mode}" for mode in ("READ ONLY", "READ WRITE")]
    ),
    "block": st.sampled_from(
        ["BEGIN", "BEGIN", "BEGIN READ ONLY", "START TRANSACTION ISOLATION LEVEL REPEATABLE READ", "COMMIT", "COMMIT",
         "ROLLBACK", "END", "COMMIT AND CHAIN", "ROLLBACK AND CHAIN"]
    ),
    "savepoint": st.sampled_from(
        [f"{verb} {name}" for verb in ("SAVEPOINT", "SAVEPOINT", "ROLLBACK TO", "RELEASE") for name in "ab"]
    ),
    "error": st.sampled_from(["SELECT 1 / 0", "SELECT nothing", "SELEC", "SELECT tenant_id FRM ledger"]),
    "prepare": st.sampled_from(
        ["PREPARE p AS SELECT 1 AS one", "PREPARE q (int) AS SELECT $1 + 1", "PREPARE q AS SELECT 2", f"PREPARE r AS {READ}",
         "EXECUTE p", "EXECUTE q", "EXECUTE q (3)", "EXECUTE r", "DEALLOCATE p", "DEALLOCATE q", "DEALLOCATE ALL"]
    ),
    "temp": st.sampled_from(
        ["CREATE TEMP TABLE mine (n int)", "CREATE TEMP TABLE mine AS SELECT 1 AS n", "DROP TABLE mine",
         "CREATE TEMP TABLE brief (n int) ON COMMIT DROP", "CREATE TEMP TABLE rows (n int) ON COMMIT DELETE ROWS",
         "INSERT INTO mine VALUES (1)", "SELECT count(*) FROM mine", "SELECT count(*) FROM brief", "DROP TABLE rows",
         "DISCARD TEMP"]
    ),
    "cursor": st.sampled_from(
        ["DECLARE c CURSOR WITH HOLD FOR SELECT generate_series(1, 5)", "DECLARE d CURSOR FOR SELECT generate_series(1, 5)",
         "FETCH 2 FROM c", "FETCH d", "CLOSE c", "CLOSE d", "CLOSE ALL"]
    ),
    "lock": st.sampled_from(
        [f"SELECT {function}({key})" for key in (1, 2) for function in
         ("pg_try_advisory_lock", "pg_try_advisory_lock", "pg_advisory_unlock", "pg_try_advisory_xact_lock")]
        + ["SELECT pg_advisory_unlock_all()"]
    ),
    "listen": st.sampled_from(
        ["LISTEN one", "LISTEN two", "UNLISTEN one", "UNLISTEN *", "NOTIFY one, 'a'", "NOTIFY two, 'b'",
         "SELECT pg_notify('one', 'c')"]
    ),
    "insert": st.sampled_from(
        ["INSERT INTO ledger (note) VALUES ('x') RETURNING id, tenant_id", READ,
         "INSERT INTO ledger (tenant_id, note) VALUES ('std_2', 'y')", "DELETE FROM ledger WHERE id % 3 = 0"]
    ),
}  # fmt: skip
# Of sessions that keep what they draw only.
TEXTS["sequence"] = st.sampled_from(
    ["SELECT nextval('ledger_id_seq')", "SELECT currval('ledger_id_seq')", "SELECT lastval()", "SELECT draw()",
     "SELECT nextval('other')", "SELECT currval('other')", "SELECT setval('other', 40)", "DISCARD SEQUENCES"]
)  # fmt: skip
EVERYTHING = ("RESET ALL", "DISCARD ALL")
CHOICES = [
    *(f"SET app.tenant_id = '{tenant}'" for tenant in ("std_1", "std_2")),
    *(f"SET LOCAL app.tenant_id = '{tenant}'" for tenant in ("std_1", "std_2")),
    "RESET app.tenant_id",
]
_WAYS = st.sampled_from(["simple", "simple", "extended"])


def _several(kinds: list[str]) -> st.SearchStrategy[Step]:
    kinds = [kind for kind in kinds if kind not in ("everything", "config", "named", "choose", "leave")]
    if not kinds:
        return st.nothing()
    texts = st.lists(st.sampled_from(kinds).flatmap(lambda kind: TEXTS[kind]), min_size=2, max_size=4)
    return st.builds(
        lambda found, way: Step("several", tuple(found), way), texts, st.sampled_from(["text", "batch"])
    )


def _named() -> st.SearchStrategy[Step]:
    name = st.sampled_from(["s", "t"])
    prepared = st.builds(
        lambda text, name: Step("named", (text,), "parse", name=name),
        st.sampled_from(
            ["SELECT 1 AS one", READ, "SET work_mem = '3MB'", "INSERT INTO ledger (note) VALUES ('z')"]
        ),
        name,
    )
    used = st.builds(
        lambda way, name: Step("named", ("",), way, name=name),
        st.sampled_from(["bind", "bind", "close"]),
        name,
    )
    return prepared | used


def _choices() -> st.SearchStrategy[Step]:
    said = st.builds(lambda text, way: Step("choose", (text,), way), st.sampled_from(CHOICES), _WAYS)
    bound = st.builds(
        lambda tenant, local: Step("choose", ("SELECT set_config('app.tenant_id', $1, $2)",), "extended", (tenant, local)),
        st.sampled_from(["std_1", "std_2"]), st.sampled_from(["t", "f"]),
    )  # fmt: skip
    begun = st.builds(
        lambda tenant: Step("choose", ("BEGIN", f"SET LOCAL app.tenant_id = '{tenant}'", READ), "text"),
        st.sampled_from(["std_1", "std_2"]),
    )
    return said | bound | begun


def of_kind(kind: str) -> st.SearchStrategy[Step]:
    if kind == "everything":
        return st.builds(lambda text, way: Step(kind, (text,), way), st.sampled_from(EVERYTHING), _WAYS)
    if kind == "config":
        return _bound_settings()
    if kind == "named":
        return _named()
    if kind == "choose":
        return _choices()
    if kind == "leave":
        return st.builds(lambda way: Step(kind, (), way), st.sampled_from(["close", "hang up", "reset"]))
    return st.builds(lambda text, way: Step(kind, (text,), way), TEXTS[kind], _WAYS)


KINDS = [*TEXTS, "everything", "config", "named", "choose", "leave"]


def scripts(sessions: int, longest: int) -> st.SearchStrategy[list[tuple[int, Step]]]:
    """Who does what; each script has some of the kinds only, so that what these do meets more often."""

    def of_kinds(kinds: set[str]) -> st.SearchStrategy[list[tuple[int, Step]]]:
        chosen = sorted({*kinds, "show", "block"})
        one = st.sampled_from(chosen).flatmap(of_kind)
        step = st.one_of(one, one, one, _several(chosen))
        part = st.lists(st.tuples(st.integers(0, sessions - 1), step), max_size=longest // 5)
        # A list by itself is seldom much longer than five.
        return st.builds(lambda *parts: [each for found in parts for each in found], *[part] * 5)

    return st.sets(st.sampled_from(KINDS), min_size=1, max_size=5).flatmap(of_kinds)
