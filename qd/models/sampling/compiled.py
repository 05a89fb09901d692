"""The C++ file beside this one, compiled on its first use by the machine's own compiler, for the machine's processor.

A plain shared library without headers of torch or Python: about three seconds to compile, and it fits any version of
either. It is kept in the user's cache folder under a name made of the source, the compiler and the processor's
abilities, so a change of one of them compiles anew.
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
FLAGS = [
    "-std=c++17", "-O3", "-march=native", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math",
    "-shared", "-fPIC", "-pthread",
]  # fmt: skip
SLOWER = "sampling on the CPU takes the plain path, about half as fast"


@cache
def load_library() -> ctypes.CDLL | None:
    """The compiled library; None, with one warning, where there is no compiler or it fails."""
    command = find_compiler()
    if command is None:
        warnings.warn(f"no C++ compiler (c++, g++ or clang++, or the one that CXX names): {SLOWER}.", stacklevel=2)
        return None
    try:
        return ctypes.CDLL(str(compiled(command, library_folder())))
    except (OSError, subprocess.SubprocessError) as error:
        told = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        warnings.warn(f"{SOURCE.name} could not be compiled ({told[0] if told else error}): {SLOWER}.", stacklevel=2)
        return None


def find_compiler() -> list[str] | None:
    """The command of the compiler: CXX, or the first of the usual names that is installed."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    commands = [shlex.split(name) for name in names]
    return next((command for command in commands if command and shutil.which(command[0])), None)


def compiled(command: list[str], folder: Path) -> Path:
    """The library in ``folder``, compiled now if it is not there. Processes that do so at once do not disturb each
    other: each writes a file of its own and renames it.

    Raises:
        subprocess.SubprocessError, OSError: if the compiler fails, or the folder takes no file.
    """
    # The macros that a compiler defines tell its version and every instruction set that "native" means here: a home
    # folder may be shared by machines that differ.
    macros = _run([*command, *FLAGS, "-dM", "-E", "-x", "c++", os.devnull])
    made_of = "\n".join([platform.platform(), *command, *FLAGS, macros, SOURCE.read_text(encoding="utf-8")])
    library = folder / f"token_loop-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}.so"
    if not library.is_file():
        print(f"compiling {SOURCE.name} once, a few seconds, to {library}", file=sys.stderr, flush=True)
        with atomic_write(library) as temporary:
            _run([*command, *FLAGS, str(SOURCE), "-o", str(temporary)])
    return library


def library_folder() -> Path:
    """The cache folder; where that cannot be written, a temporary folder of this process."""
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):  # no home folder, or none that may be written
        pass
    return Path(tempfile.mkdtemp(prefix="qd-"))


def _run(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
