"""What a program leaves for the one that takes its place arrives whole, and a failure leaves all as it was."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from proxy.supervisor import heritage


def test_it_arrives_whole_and_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert heritage.receive() is None
    kept, _other = os.pipe()
    os.set_inheritable(kept, True)
    left = {"workers": [{"number": 1}], "text": "x" * 1_000_000, "é": None}
    fd = heritage.write(left, [kept])
    monkeypatch.setenv(heritage.VARIABLE, str(fd))
    found = heritage.receive()
    assert found == left | {"descriptors": [kept]}
    assert not os.get_inheritable(kept)
    assert heritage.VARIABLE not in os.environ
    assert heritage.receive() is None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    os.close(kept)
    os.close(_other)


def test_a_program_that_cannot_be_run_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, other = os.pipe()
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    fd = heritage.write({}, [kept])
    with pytest.raises(FileNotFoundError):
        heritage.replace_program(fd, [kept])
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    assert not os.get_inheritable(kept)
    assert not os.get_inheritable(fd)
    for number in (kept, other, fd):
        os.close(number)


def test_the_arguments_are_those_of_the_first_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "proxy", "serve", "--config", "serve.toml"])
    assert heritage.arguments() == ["serve", "--config", "serve.toml"]
