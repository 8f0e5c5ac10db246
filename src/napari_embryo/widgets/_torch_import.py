"""Safe import of torch into a process with a window."""

import os
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path

_LOADED = Path("/proc/self/maps")


def prepare_for_torch() -> None:
    """Prepare the import of torch while a window is open.

    Mesa's OpenGL exposes its libLLVM to every library loaded later. Triton (from 3.7; part of torch on Linux, and
    imported by torchvision) has its own LLVM but would call Mesa's instead and crash the program, unless it is bound to
    its own symbols first.
    """
    if "triton" in sys.modules or not hasattr(os, "RTLD_DEEPBIND") or not _shows_llvm():
        return
    flags = sys.getdlopenflags()
    sys.setdlopenflags(os.RTLD_NOW | os.RTLD_DEEPBIND)
    try:
        with suppress(ImportError):
            import_module("triton")
    finally:
        sys.setdlopenflags(flags)


def _shows_llvm() -> bool:
    return _LOADED.exists() and "libLLVM" in _LOADED.read_text(errors="replace")
