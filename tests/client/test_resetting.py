"""What is written into a text behind its RESETs, and what is heard of it."""

from __future__ import annotations

import re

import pytest

from proxy.client.resetting import Amended, amended
from proxy.wire import encode
from tests.client.stage import Stage, done
from tests.rawclient import errors, kinds

TEXT = "SELECT 'é'; RESET ALL; SELECT nothing"
VALUES = {"app.tenant_id": "acme"}


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


class Unsealed:
    sealer = None


def written(text: str, values: dict[str, str]) -> Amended | None:
    return amended(Unsealed(), text.encode(), values)  # type: ignore[arg-type]


def test_values_stand_there_as_digits() -> None:
    nasty = "a'); DROP TABLE t; --\\é"
    found = written(TEXT, {"search_path": nasty})
    assert found is not None
    text = found.text.decode()
    assert text.startswith("SELECT 'é'; RESET ALL\n; SELECT 1 AS \"tiergate_again_")
    assert text.endswith("; SELECT nothing")
    assert [bytes.fromhex(digits).decode() for digits in re.findall(r"'([0-9a-f]{9,})'", text)] == [
        "search_path",
        nasty,
    ]
    assert "DROP" not in text


def test_of_one_name_only_its_value() -> None:
    assert written("RESET work_mem; SELECT 1", VALUES) is None
    found = written("RESET app.tenant_id; SELECT 1", VALUES | {"work_mem": "1MB"})
    assert found is not None
    assert found.text.count(b"set_config") == 1


def test_what_is_no_utf_8_is_left_to_what_follows_the_text() -> None:
    assert written(TEXT, {"search_path": "\udcff"}) is None


@pytest.mark.parametrize("place", [8, 12])
def test_a_place_ahead_of_it_is_told_as_it_is(place: int) -> None:
    found = written(TEXT, VALUES)
    assert found is not None
    assert found(ord("E"), encode.frame(b"E", b"SERROR\0C42703\0P%d\0\0" % place), True) == b""


def test_a_place_behind_it_is_that_in_the_clients_text() -> None:
    found = written(TEXT, VALUES)
    assert found is not None
    place = found.text.decode().index("nothing") + 1
    frame = encode.frame(b"E", b"SERROR\0C42703\0P%d\0\0" % place)
    assert found(ord("E"), frame, True) == encode.frame(
        b"E", b"SERROR\0C42703\0P%d\0\0" % (TEXT.index("nothing") + 1)
    )


def test_its_answer_is_left_out(stage: Stage) -> None:
    client, server = stage.unlinked()
    client.says(encode.query(b"RESET ALL; SELECT 1"))
    sent = server.take()
    (mark,) = re.findall(rb'AS "(tiergate_again_\w+)"', sent)
    assert b"acme".hex().encode() in sent
    hidden = encode.row_description([(mark.decode(), 23, 0)]) + encode.command_complete("SELECT 0")
    row = encode.row_description([("?column?", 23, 0)]) + encode.data_row(["1"])
    server.say(encode.command_complete("RESET") + hidden + row + done())
    assert kinds(client.reads()) == "CTDCZ"
    assert b"acme" not in server.take(), "it is there"
    stage.leave()


def test_an_error_behind_it_tells_its_place(stage: Stage) -> None:
    client, server = stage.unlinked()
    client.says(encode.query(b"RESET ALL; SELECT x"))
    text = server.take()[5:-1].decode()
    place = text.index("SELECT x") + 8
    server.say(encode.frame(b"E", b"SERROR\0VERROR\0C42703\0Mno\0P%d\0\0" % place), encode.ready_for_query())
    (error,) = errors(client.reads())
    assert error["P"] == "19"
    stage.leave()
