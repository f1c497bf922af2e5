"""What the tests of deploy/ read: YAML documents and a Dockerfile's instructions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document is not None]


def instructions(path: Path) -> list[tuple[str, str]]:
    """(INSTRUCTION, arguments) with continued lines joined; comments are none."""
    joined: list[str] = []
    continued = False
    for line in path.read_text().splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        text = line.strip().removesuffix("\\").strip()
        if continued:
            joined[-1] += " " + text
        else:
            joined.append(text)
        continued = line.rstrip().endswith("\\")
    return [(name.upper(), rest.strip()) for name, _, rest in (line.partition(" ") for line in joined)]
