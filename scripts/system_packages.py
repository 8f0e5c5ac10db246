"""Name, or install as root, the system packages that a window needs on Linux; elsewhere nothing is needed.

    python scripts/system_packages.py tests|demo

Standard library only: it runs before anything else is known to work.
"""

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping

LIBRARIES = {
    "libGL.so.1": "libgl1",
    "libEGL.so.1": "libegl1",
    "libX11-xcb.so.1": "libx11-xcb1",
    "libdbus-1.so.3": "libdbus-1-3",
    "libfontconfig.so.1": "libfontconfig1",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libxcb-cursor.so.0": "libxcb-cursor0",
    "libxcb-icccm.so.4": "libxcb-icccm4",
    "libxcb-image.so.0": "libxcb-image0",
    "libxcb-keysyms.so.1": "libxcb-keysyms1",
    "libxcb-randr.so.0": "libxcb-randr0",
    "libxcb-render-util.so.0": "libxcb-render-util0",
    "libxcb-shape.so.0": "libxcb-shape0",
    "libxcb-xinerama.so.0": "libxcb-xinerama0",
    "libxkbcommon-x11.so.0": "libxkbcommon-x11-0",
}
"""Library loaded by Qt or OpenGL -> Debian and Ubuntu package that contains it."""

PROGRAMS = {"Xvfb": "xvfb"}
"""Programs that the tests start if there is no screen."""

INSTALL = ("apt-get", "install", "-y", "--no-install-recommends")


def has_screen(environ: Mapping[str, str]) -> bool:
    return bool(environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"))


def needed(purpose: str, platform: str, screen: bool) -> tuple[dict[str, str], dict[str, str]]:
    """Libraries and programs for ``tests``, which always open windows, or ``demo``, which needs a screen for that."""
    if not platform.startswith("linux") or (purpose == "demo" and not screen):
        return {}, {}
    return LIBRARIES, {} if screen else PROGRAMS


def loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def missing(purpose: str) -> dict[str, str]:
    """Missing library or program -> its package."""
    libraries, programs = needed(purpose, sys.platform, has_screen(os.environ))
    return {name: package for name, package in libraries.items() if not loads(name)} | {
        name: package for name, package in programs.items() if shutil.which(name) is None
    }


def instructions(absent: Mapping[str, str], *, apt: bool, root: bool) -> str:
    """Instructions for a user who has to install packages."""
    line = " ".join([*(() if root else ("sudo",)), *INSTALL, *absent.values()])
    how = "Install them" if apt else "Install the packages that contain them (the line below is for Debian and Ubuntu)"
    return f"Missing on this system: {', '.join(absent)}.\n{how}, then try again:\n    {line}"


def install(packages: list[str]) -> bool:
    """Install as root on Debian and Ubuntu."""
    environ = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update"], env=environ, check=False)
    return subprocess.run([*INSTALL, *packages], env=environ, check=False).returncode == 0


def main(arguments: list[str]) -> int:
    if arguments not in (["tests"], ["demo"]):
        print("usage: system_packages.py tests|demo", file=sys.stderr)
        return 2
    absent = missing(arguments[0])
    apt = shutil.which("apt-get") is not None
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    if absent and apt and root and install(list(absent.values())):
        absent = missing(arguments[0])
    if absent:
        print(instructions(absent, apt=apt, root=root), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
