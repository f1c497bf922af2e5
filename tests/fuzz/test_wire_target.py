from __future__ import annotations

from random import Random

import pytest

from proxy import BUILD
from proxy.wire import decode, frames
from tests.fuzz import wire_target
from tests.fuzz.wire_target import check, mutate, read_corpus, run


def test_mutations_of_the_corpus():
    assert run(3.0, 0) > len(read_corpus())


@pytest.mark.skipif(BUILD == "compiled", reason="compiled lines are not traced")
def test_the_corpus_reaches_every_reader():
    steps = set().union(*(wire_target.reached(data) for data in read_corpus()))
    files = {name.rpartition("/proxy/")[2] for name, *_ in steps}
    assert files >= {
        "wire/startup.py",
        "wire/frames.py",
        "wire/decode.py",
        "wire/encode.py",
        "sql/verdict.py",
        "sql/tree.py",
        "sql/escapes.py",
        "sql/words.py",
    }


def _first_failure() -> bytes | None:
    corpus, random = read_corpus(), Random(0)
    for data in corpus + [mutate(random.choice(corpus), corpus, random) for _ in range(3000)]:
        try:
            check(data)
        except Exception:
            return data
    return None


def test_an_input_that_breaks_a_reader_is_found(monkeypatch):
    monkeypatch.setattr(decode, "cstring", lambda body, at=0: (body[at : body.index(b"\0", at)], at + 1))
    assert _first_failure() is not None


def test_a_scanner_that_forgets_bytes_is_found(monkeypatch):
    class Forgetful:
        """Not a subclass: compiled, a scanner has none."""

        def __init__(self, *given):
            self.scanner = frames.Scanner(*given)

        def __getattr__(self, name):
            return getattr(self.scanner, name)

        def feed(self, chunk):
            self.scanner.feed(chunk[:4096])

    monkeypatch.setattr(wire_target, "Scanner", Forgetful)
    assert _first_failure() is not None


def test_nothing_fails_as_it_is():
    assert _first_failure() is None


def test_a_failing_input_is_named(monkeypatch):
    def fail(data: bytes) -> None:
        raise AssertionError

    monkeypatch.setattr(wire_target, "check", fail)
    with pytest.raises(AssertionError) as caught:
        run(1.0, 0)
    assert caught.value.__notes__ == [f"input: {read_corpus()[-1].hex()}"]


def test_packing_keeps_what_reaches_new_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(wire_target, "CORPUS", tmp_path / "corpus.hex")
    first = b"\x03SELECT 1"
    (tmp_path / "corpus.hex").write_text(first.hex())
    found = tmp_path / "found"
    found.mkdir()
    (found / "same").write_bytes(b"\x03SELECT 2")
    (found / "new").write_bytes(b"\x03SET x = 1")
    assert wire_target.pack(found) == 2
    assert set(read_corpus()) == {first, b"\x03SET x = 1"}
