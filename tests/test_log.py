"""The log: levels, both forms, secrets, hostile text, and other libraries' logging."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import log
from proxy.log import Format, Level


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    log.configure()
    root.handlers[:] = handlers
    root.setLevel(level)


def to(format: Format, level: Level = "info") -> io.StringIO:
    out = io.StringIO()
    log.configure(format, level, out)
    return out


def events(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_one_json_object_a_line() -> None:
    out = to("json")
    log.get("proxy.client.session").info("session ended", tenant="acme", queries=3, note="a\nb")
    (event,) = events(out)
    timestamp = event.pop("timestamp")
    assert timestamp.endswith("Z")
    assert event == {
        "event": "session ended",
        "level": "info",
        "logger": "client.session",
        "tenant": "acme",
        "queries": 3,
        "note": "a\nb",
    }


def test_the_console_has_one_line_an_event() -> None:
    out = to("console")
    log.get("x").warning("server lost", endpoint="pg1:5432", reason='said "no"\nand left', none=None)
    (line,) = out.getvalue().splitlines()
    time, rest = line.split(" ", 1)
    assert time.endswith("Z")
    assert (
        rest == 'warning server lost logger=x endpoint=pg1:5432 reason="said \\"no\\"\\nand left" none=None'
    )


@given(st.text(), st.text())
def test_no_text_can_start_a_line_of_its_own(event: str, value: str) -> None:
    out = to("console")
    log.get("x").info(event, value=value)
    assert len(out.getvalue().splitlines()) == 1
    out = to("json")
    log.get("x").info(event, value=value)
    assert len(out.getvalue().split("\n")) == 2


@pytest.mark.parametrize(
    ("level", "seen"),
    [("debug", "dbwielg"), ("info", "iwelg"), ("warning", "welg"), ("error", "elg")],
)
def test_levels(level: Level, seen: str) -> None:
    out = to("json", level)
    logger = log.get("x")
    logger.debug("d")
    logger.log("debug", "b")
    logger.warning("w")
    logger.info("i")
    logger.error("e")
    logger.log("error", "l")
    logger.exception("g", ValueError())
    assert sorted(e["event"] for e in events(out)) == sorted(seen)
    assert [logger.enabled(name) for name in ("debug", "info", "warning", "error")] == [
        "d" in seen, "i" in seen, "w" in seen, "e" in seen,
    ]  # fmt: skip


def test_a_logger_made_earlier_follows_a_reload() -> None:
    logger = log.get("x")
    first = to("json", "error")
    logger.info("quiet")
    second = to("console", "debug")
    logger.debug("loud")
    assert first.getvalue() == ""
    assert "loud" in second.getvalue()


def test_a_process_says_which_it_is_with_every_event() -> None:
    out = to("json")
    log.identify(worker=3)
    try:
        log.get("one").info("a", n=1)
        log.get("other", worker=4).info("b")
    finally:
        log._process.clear()
    assert [(event["event"], event["worker"]) for event in events(out)] == [("a", 3), ("b", 4)]


def test_bound_fields_come_with_every_event() -> None:
    out = to("json")
    logger = log.get("x", worker=1).bind(client="c1")
    logger.bind(client="c2").info("a", more=1)
    logger.info("b")
    assert [{k: e.get(k) for k in ("worker", "client", "more")} for e in events(out)] == [
        {"worker": 1, "client": "c2", "more": 1},
        {"worker": 1, "client": "c1", "more": None},
    ]


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize(
    "name",
    [
        "password", "Password", "server_password", "passwd", "secret", "client-secret", "key", "private_key",
        "cancel_key", "verifier", "scram_verifier", "token", "api_token",
    ],
)  # fmt: skip
def test_secrets_are_hidden(form: Format, name: str) -> None:
    out = to(form)
    log.get("x").info("e", **{name: "hush", "deep": {"a": [{name: "hush"}]}})
    assert "hush" not in out.getvalue()
    assert out.getvalue().count(log.REDACTED) == 2


@pytest.mark.parametrize("name", ["pool_key", "user", "tokens_left", "keys", "monkey"])
def test_what_only_sounds_like_a_secret_is_shown(name: str) -> None:
    out = to("json")
    log.get("x").info("e", **{name: "plain"})
    assert events(out)[0][name] == "plain"


def test_redacting_leaves_the_callers_values_alone() -> None:
    to("json")
    fields = {"inner": {"password": "hush"}}
    log.get("x").info("e", fields=fields)
    assert fields == {"inner": {"password": "hush"}}


def failed() -> BaseException:
    try:
        raise ValueError("what\nhappened")
    except ValueError as error:
        return error


def test_a_bug_has_its_traceback() -> None:
    out = to("json")
    log.get("x").exception("bug", failed())
    (event,) = events(out)
    assert "in failed" in event["exception"]
    out = to("console")
    log.get("x").exception("bug", failed())
    first, *rest = out.getvalue().splitlines()
    assert first.endswith("error   bug logger=x")
    assert all(line.startswith("    ") for line in rest)
    assert any("ValueError: what" in line for line in rest)


def test_values_that_json_does_not_know_are_text() -> None:
    out = to("json")
    log.get("x").info("e", value=frozenset({1}), data=b"\xff")
    assert events(out)[0]["value"] == "frozenset({1})"


@pytest.mark.parametrize("form", ["json", "console"])
def test_other_libraries_come_out_in_the_same_form(form: Format) -> None:
    out = to(form)
    logging.getLogger("asyncio").error("Task %s failed", "x", exc_info=failed())
    logging.getLogger("asyncio").debug("chatter")
    if form == "json":
        (event,) = events(out)
        assert (event["event"], event["level"], event["logger"]) == ("Task x failed", "error", "asyncio")
        assert "in failed" in event["exception"]
    else:
        assert out.getvalue().splitlines()[0].endswith("error   Task x failed logger=asyncio")
        assert "in failed" in out.getvalue()


def test_configuring_twice_does_not_say_things_twice() -> None:
    first, second = to("json"), to("json")
    logging.getLogger("y").error("once")
    assert first.getvalue() == ""
    assert len(events(second)) == 1


def test_what_cannot_be_printed_is_escaped_and_the_rest_is_left() -> None:
    stream = to("console")
    log.get("proxy.test").info(
        "it is\tso", plain="a-b:c/d", spaced="a b", empty="", quoted='say "x"', odd="a\x07=ü"
    )
    head, line = stream.getvalue().split(" info    ", 1)
    assert head
    assert (
        line
        == 'it is\\tso logger=test plain=a-b:c/d spaced="a b" empty="" quoted="say \\"x\\"" odd="a\\x07=ü"\n'
    )


class Disk(io.StringIO):
    """Full until there is room."""

    room = False

    def flush(self) -> None:
        if not self.room:
            self.truncate(0)
            self.seek(0)
            raise OSError(28, "No space left on device")


@pytest.mark.parametrize("format", ["json", "console"])
def test_a_line_that_cannot_be_written_is_lost_and_nothing_else(format: Format) -> None:
    out = Disk()
    log.configure(format, "info", out)
    log.get("x").error("lost")
    logging.getLogger("library").error("lost as well")
    assert out.getvalue() == ""
    out.room = True
    log.get("x").info("there is room")
    log.get("x").info("and goes on")
    first, second = out.getvalue().splitlines()
    assert "lines_lost" in first
    assert "2" in first.partition("lines_lost")[2]
    assert "lines_lost" not in second


def test_a_stream_that_was_closed() -> None:
    out = to("json")
    out.close()
    log.get("x").error("nobody hears it")
