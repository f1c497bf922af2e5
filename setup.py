"""Compiles the hot modules, those with a .pxd beside them, where Cython and a C compiler are there; without these
the same source is interpreted.

TIERGATE_COMPILE=1 compiles always (a failure is an error), TIERGATE_COMPILE=0 never. By default a wheel is
compiled as far as that is possible, and an editable install is not, so that what one edits is what runs.

TIERGATE_PROFILE=DIR compiles by a profile (gcc's): as long as DIR has none, so that each process leaves its own there
as it ends, and then by what is there. Both builds are of one directory, by whose path gcc names the profiles; a module
without one is compiled as ever, and gcc says so. Sources that have changed since are an error: empty DIR then.
"""

import os
import sys
from pathlib import Path

from setuptools import Extension, setup


def _source(types: Path) -> str:
    """A module has one source; where C does it another way, the twin that is compiled stands beside it."""
    twin = types.with_suffix(".pyx")
    return str(twin if twin.exists() else types.with_suffix(".py"))


def _profiled() -> list[str]:
    """What is compiled by a profile, or so that it leaves one."""
    directory = os.environ.get("TIERGATE_PROFILE", "")
    if not directory:
        return []
    profile = Path(directory).resolve()
    if not any(profile.glob("*.gcda")):
        return [f"-fprofile-generate={profile}"]
    # What the training did not reach is compiled for speed all the same: it may be what another's load does most.
    return [f"-fprofile-use={profile}", "-fprofile-partial-training"]


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
            ".".join(types.with_suffix("").parts),
            [_source(types)],
            optional=not wanted,
            extra_compile_args=["-O2", "-g0"],
        )
        for types in sorted(Path("proxy").rglob("*.pxd"))
    ]
    # Annotations are for readers and mypy; the types of the compiled code stand in the .pxd files.
    compiled = cythonize(modules, build_dir="build/cython", compiler_directives={"annotation_typing": False})
    # Not sooner: Cython writes the arguments that it knows into the C, whose lines have to be the same both times.
    for module in compiled:
        module.extra_compile_args += (profiled := _profiled())
        module.extra_link_args += profiled
    return compiled


# With a profile the same source is compiled otherwise than before.
setup(
    ext_modules=extensions(),
    options={"build_ext": {"parallel": os.cpu_count(), "force": bool(os.environ.get("TIERGATE_PROFILE"))}},
)
