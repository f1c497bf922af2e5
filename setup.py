"""Compiles the hot modules where Cython and a C compiler are there; without them the same source is interpreted.

TIERGATE_COMPILE=1 compiles always (a failure is an error), TIERGATE_COMPILE=0 never. By default a wheel is
compiled as far as that is possible, and an editable install is not, so that what one edits is what runs.
"""

import os
import sys

from setuptools import Extension, setup

COMPILED = (
    "stats",
    "wire/decode",
    "wire/frames",
    "sql/verdict",
    "sql/words",
    "admission/accounts",
    "protocol/lifecycle",
    "protocol/pipeline",
    "protocol/state",
    "protocol/statements",
    "net/sockets",
    "net/transport",
    "server/connection",
    "server/link",
    "server/pool",
    "registry/memory",
    "client/conversation",
    "client/linking",
    "client/plane",
    "client/prepared",
    "client/refusals",
    "client/requests",
    "client/session",
)


def _source(name: str) -> str:
    """A module has one source; where C does it another way, the twin that is compiled stands beside it."""
    twin = f"proxy/{name}.pyx"
    return twin if os.path.exists(twin) else f"proxy/{name}.py"


def extensions() -> list[Extension]:
    wanted = os.environ.get("TIERGATE_COMPILE", "")
    if wanted == "0" or (not wanted and "editable_wheel" in sys.argv):
        return []
    try:
        from Cython.Build import cythonize
    except ImportError:
        if wanted:
            raise
        return []
    modules = [
        Extension(
            "proxy." + name.replace("/", "."),
            [_source(name)],
            optional=not wanted,
            extra_compile_args=["-O2", "-g0"],
        )
        for name in COMPILED
    ]
    # Annotations are for readers and mypy; the types of the compiled code stand in the .pxd files.
    return cythonize(modules, build_dir="build/cython", compiler_directives={"annotation_typing": False})


setup(ext_modules=extensions(), options={"build_ext": {"parallel": os.cpu_count()}})
