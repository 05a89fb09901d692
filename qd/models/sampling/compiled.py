"""Compiles ``token_loop.cpp`` on its first use with the machine's compiler, for the machine's processor.

The result is a plain shared library without headers of torch or Python, so it compiles in about three seconds and works
with any version of them. It is stored in the user's cache folder. Its name contains a hash of the source, the compiler
and the processor's instruction sets, so a change of any of them triggers a new compilation; so does a damaged file.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path

from qd.runs.atomic import atomic_write
from qd.runs.cache import cache_folder, made_once
from qd.runs.printable import printable

SOURCE = Path(__file__).with_name("token_loop.cpp")
HEADERS = sorted(SOURCE.parent.glob("token_loop_*.h"))
FLAGS = [
    "-std=c++17", "-O3", "-march=native", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math",
    "-shared", "-fPIC", "-pthread",
]  # fmt: skip
SLOWER = "sampling on the CPU uses the plain loop, about half as fast"


@cache
def load_library() -> ctypes.CDLL | None:
    """Returns the compiled library; without a working compiler, returns None and warns once."""
    command = find_compiler()
    if command is None:
        warnings.warn(f"no C++ compiler (c++, g++, clang++ or the one in CXX) was found: {SLOWER}.", stacklevel=2)
        return None
    try:
        return _load(command)
    except (OSError, subprocess.SubprocessError) as error:
        lines = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        warnings.warn(f"{SOURCE.name} could not be compiled ({lines[0] if lines else error}): {SLOWER}.", stacklevel=2)
        return None


def find_compiler() -> list[str] | None:
    """Returns the compiler's command: CXX, or the first installed one of the usual names; None if there is none."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    commands = [shlex.split(name) for name in names]
    return next((command for command in commands if command and shutil.which(command[0])), None)


def library_file(command: list[str], folder: Path) -> Path:
    """Returns the path of the library in ``folder``, existing or not.

    Raises:
        subprocess.SubprocessError, OSError: the compiler fails.
    """
    # The compiler's predefined macros contain its version and every instruction set of "-march=native": different
    # machines may share a home folder.
    macros = _run([*command, *FLAGS, "-dM", "-E", "-x", "c++", os.devnull])
    sources = [file.read_text(encoding="utf-8") for file in (SOURCE, *HEADERS)]
    identity = "\n".join([platform.platform(), *command, *FLAGS, macros, *sources])
    return folder / f"token_loop-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.so"


def _load(command: list[str]) -> ctypes.CDLL:
    """Loads the library of the cache; where the cache cannot be written, one that is compiled for this process."""
    with suppress(OSError, RuntimeError):  # RuntimeError: there is no home folder
        library = library_file(command, cache_folder())
        return ctypes.CDLL(str(made_once(library, lambda: _compile(command, library))))
    with tempfile.TemporaryDirectory(prefix="qd-") as folder:
        library = library_file(command, Path(folder))
        _compile(command, library)
        return ctypes.CDLL(str(library))  # stays loaded after its file is removed


def _compile(command: list[str], library: Path) -> None:
    with atomic_write(library) as temporary:
        print(printable(f"compiling {SOURCE.name} once, a few seconds, to {library}"), file=sys.stderr, flush=True)
        _run([*command, *FLAGS, "-I", str(HEADERS[0].parent), str(SOURCE), "-o", str(temporary)])


def _run(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
