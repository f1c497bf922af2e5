"""The image: small, without root, and healthy by its own judgement."""

from __future__ import annotations

import http.server
import json
import os
import shlex
import subprocess
import sys
import threading

from proxy import settings
from tests.deploy.documents import ROOT, instructions

DOCKERFILE = instructions(ROOT / "Dockerfile")


def stages() -> list[list[tuple[str, str]]]:
    found: list[list[tuple[str, str]]] = []
    for row in DOCKERFILE:
        if row[0] == "FROM":
            found.append([])
        found[-1].append(row)
    return found


def environment() -> dict[str, str]:
    found = {}
    for name, rest in stages()[-1]:
        if name == "ENV":
            found |= dict(part.split("=", 1) for part in shlex.split(rest))
    return found


def one(instruction: str) -> str:
    (rest,) = [rest for name, rest in stages()[-1] if name == instruction]
    return rest


def test_known_instructions_only() -> None:
    known = {
        "FROM", "WORKDIR", "RUN", "COPY", "LABEL", "ENV", "USER", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK",
        "ENTRYPOINT", "CMD",
    }  # fmt: skip
    assert {name for name, _ in DOCKERFILE} <= known


def test_two_stages_on_slim_and_the_last_takes_only_the_result() -> None:
    build, last = stages()
    assert build[0][1].endswith(" AS build")
    for stage in (build, last):
        assert "-slim" in stage[0][1]
    assert [rest for name, rest in last if name == "COPY"] == ["--from=build /opt/tiergate /opt/tiergate"]


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignore
    for name, rest in stages()[0]:
        if name == "COPY":
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists()
                assert f"!{source}" in ignore or f"!{source}/" in ignore


def test_not_root_by_number() -> None:
    user, _, group = one("USER").partition(":")
    assert int(user) > 0
    assert int(group) > 0


def test_ports_are_those_of_the_configuration() -> None:
    config = settings.parse("", "image.toml", environment())
    assert config.process.listen_addr == "*"
    assert config.process.http == ("0.0.0.0", 9187)
    assert {int(port) for port in one("EXPOSE").split()} == {config.process.listen_port, 9187}


def test_runs_serve_and_stops_by_draining() -> None:
    assert json.loads(one("ENTRYPOINT")) == ["tiergate"]
    assert json.loads(one("CMD"))[:2] == ["serve", "--config"]
    assert one("STOPSIGNAL") == "SIGTERM"


def health_command() -> list[str]:
    _, _, command = one("HEALTHCHECK").partition("CMD ")
    found: list[str] = json.loads(command)
    assert found[0] == "python"
    return [sys.executable, *found[1:]]


def healthy(status: int) -> int:
    """The exit code of the image's health check against a server that answers /healthz with `status`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            address = f"0.0.0.0:{server.server_port}"
            return subprocess.run(
                health_command(), env={**os.environ, "TIERGATE_HTTP_ADDR": address}, stderr=subprocess.DEVNULL
            ).returncode
        finally:
            server.shutdown()
            thread.join()


def test_health_check_tells_well_from_ill() -> None:
    assert healthy(200) == 0
    assert healthy(503) != 0
