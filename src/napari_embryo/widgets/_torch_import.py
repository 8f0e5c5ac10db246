"""What must be loaded with care into a process that has a window."""

import os
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path

_LOADED = Path("/proc/self/maps")


def prepare_for_torch() -> None:
    """Call before torch is imported beside an open window.

    Mesa's OpenGL makes its libLLVM visible to every library loaded later. Triton (from 3.7; it comes with torch on
    Linux, and torchvision imports it) has an LLVM of its own, would call Mesa's instead, and crash the program. It does
    not if it is bound to its own symbols first.
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
