"""The load run of the test suite, for as long as asked: `python benchmarks/load.py [--seconds 60]`."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def main() -> int:
    parser = argparse.ArgumentParser(
        description="2,000 clients of 300 tenants over three tiers, each answer checked."
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    seconds: float = parser.parse_args().seconds
    command = [sys.executable, "-m", "pytest", "-q", "-s", "tests/integration/test_load.py"]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, "TIERGATE_LOAD_SECONDS": str(seconds)}, check=False
    ).returncode


if __name__ == "__main__":
    raise SystemExit(main())
