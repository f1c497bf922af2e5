"""Builds, outside the tree, what is measured and not there yet: Tiergate compiled, and the two C programs."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
NATIVE = Path(__file__).parent / "native"
_WANTED = ("proxy", "setup.py", "pyproject.toml", "README.md", "LICENSE")


def has_compiler() -> bool:
    return shutil.which(os.environ.get("CC", "gcc")) is not None


def compiled_tree(copy: Path) -> Path:
    """A copy of the tree with its hot modules compiled. Used again as long as the sources are the same, and made anew
    else; a directory that is none is left alone."""
    digest = hashlib.sha256(sys.version.encode())
    if profile := os.environ.get("TIERGATE_PROFILE"):  # the same sources, compiled anew once it has been left
        digest.update(f"{profile}: {any(Path(profile).glob('*.gcda'))}".encode())
    for path in [*sorted((ROOT / "proxy").rglob("*.p*")), ROOT / "setup.py"]:
        if path.suffix in {".py", ".pyx", ".pxd"}:
            digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    stamp = copy / ".sources"
    if stamp.exists() and stamp.read_text() == digest.hexdigest():
        return copy
    if copy.exists() and not stamp.exists():
        raise SystemExit(f"{copy} is no such copy: what is in it would be lost")
    print("compiling a copy of the tree ...", file=sys.stderr)
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir(parents=True)
    stamp.touch()  # it is ours, also where what follows fails
    for name in _WANTED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        else:
            shutil.copy(ROOT / name, copy / name)
    build = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace", "-j", str(os.cpu_count())],
        cwd=copy, env={**os.environ, "TIERGATE_COMPILE": "1"}, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    if build.returncode:
        raise SystemExit(f"Tiergate cannot be compiled:\n{build.stdout[-3000:]}")
    stamp.write_text(digest.hexdigest())
    return copy


def build_of(tree: Path) -> str:
    """What the program itself says that it is: interpreted or compiled."""
    script = "import proxy; print(proxy.BUILD, proxy.__file__)"
    said = subprocess.run(
        [sys.executable, "-c", script], cwd=tree, check=True, stdout=subprocess.PIPE, text=True
    ).stdout.split()
    if Path(said[1]).parent != tree / "proxy":
        raise SystemExit(f"{said[1]} would be measured instead of {tree}")
    return said[0]


def native(name: str, directory: Path) -> Path:
    program = directory / name
    command = [os.environ.get("CC", "gcc"), "-O2", "-o", str(program), str(NATIVE / f"{name}.c")]
    subprocess.run(command, check=True)
    return program
