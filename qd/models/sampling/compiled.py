"""Compiles ``token_loop.cpp`` on its first use with the machine's compiler, for the machine's processor.

The result is a plain shared library without headers of torch or Python, so it compiles in about three seconds and works
with any version of them. It is stored in the user's cache folder. Its name contains a hash of the source, the compiler
and the processor's instruction sets, so a change of any of them triggers a new compilation.
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
from functools import cache
from pathlib import Path

from qd.runs.atomic import atomic_write
from qd.runs.cache import cache_folder

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
        return ctypes.CDLL(str(compiled(command, library_folder())))
    except (OSError, subprocess.SubprocessError) as error:
        lines = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        warnings.warn(f"{SOURCE.name} could not be compiled ({lines[0] if lines else error}): {SLOWER}.", stacklevel=2)
        return None


def find_compiler() -> list[str] | None:
    """Returns the compiler's command: CXX, or the first installed one of the usual names; None if there is none."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    commands = [shlex.split(name) for name in names]
    return next((command for command in commands if command and shutil.which(command[0])), None)


def compiled(command: list[str], folder: Path) -> Path:
    """Returns the library in ``folder``, and compiles it if it does not exist.

    Several processes may compile at the same time: each writes its own file and renames it.

    Raises:
        subprocess.SubprocessError, OSError: the compiler fails, or the folder is not writable.
    """
    # The compiler's predefined macros contain its version and every instruction set of "-march=native": different
    # machines may share a home folder.
    macros = _run([*command, *FLAGS, "-dM", "-E", "-x", "c++", os.devnull])
    sources = [file.read_text(encoding="utf-8") for file in (SOURCE, *HEADERS)]
    identity = "\n".join([platform.platform(), *command, *FLAGS, macros, *sources])
    library = folder / f"token_loop-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.so"
    if not library.is_file():
        print(f"compiling {SOURCE.name} once, a few seconds, to {library}", file=sys.stderr, flush=True)
        with atomic_write(library) as temporary:
            _run([*command, *FLAGS, "-I", str(HEADERS[0].parent), str(SOURCE), "-o", str(temporary)])
    return library


def library_folder() -> Path:
    """Returns the cache folder; if it is not writable, a temporary folder of this process."""
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):  # there is no home folder, or it is not writable
        pass
    return Path(tempfile.mkdtemp(prefix="qd-"))


def _run(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
