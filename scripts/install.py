"""Install the program into the environment that runs this script, and what the tests need, too, if asked.

    python scripts/install.py demo|tests

tox runs it before its commands: what tox installs itself, it installs in silence, and PyTorch takes minutes. On a Linux
without an NVIDIA driver, PyTorch comes from the index of processor-only builds, which spares several GB; an index of
PyTorch's in PIP_INDEX_URL or PIP_EXTRA_INDEX_URL takes precedence. Nothing is installed again until the requirements
change: the code itself is used from where it is.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTORCH = "download.pytorch.org"
CPU_INDEX = f"https://{PYTORCH}/whl/cpu"
GROUPS: dict[str, tuple[str, ...]] = {"demo": (), "tests": ("test", "lint", "bench")}
"""Purpose -> dependency groups of pyproject.toml beside the program."""
NVIDIA = (Path("/proc/driver/nvidia/version"), Path("/usr/lib/wsl/lib/nvidia-smi"))


def say(text: str) -> None:
    print(f"napari-embryo: {text}", flush=True)


def has_nvidia() -> bool:
    return shutil.which("nvidia-smi") is not None or any(path.exists() for path in NVIDIA)


def wants_cpu_build(platform: str, nvidia: bool, environ: Mapping[str, str]) -> bool:
    """Whether the package index would give a CUDA build that is of no use, and nobody chose another index."""
    chosen = any(PYTORCH in environ.get(name, "") for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"))
    return platform.startswith("linux") and not nvidia and not chosen


def pinned(constraints: str, name: str) -> str:
    """The requirement of a package as constraints.txt has it."""
    found = re.search(rf"^{name}==\S+", constraints, re.MULTILINE)
    if found is None:
        raise ValueError(f"constraints.txt has no line {name}==VERSION; add the version that was tested")
    return found[0]


def listed(name: str, index: str) -> str:
    """What an index has of a package for this Python, as pip (which knows the user's proxy) prints it."""
    command = [sys.executable, "-m", "pip", "index", "versions", name, "--index-url", index]
    return subprocess.run(
        [*command, "--retries", "0", "--timeout", "15"], capture_output=True, text=True, check=False
    ).stdout


def torch_arguments() -> list[str]:
    """What to give to ``pip install`` for PyTorch; the choice and its reason are printed."""
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    usual = [pinned(constraints, name) for name in ("torch", "torchvision")]
    if not wants_cpu_build(sys.platform, has_nvidia(), os.environ):
        say(f"[1/2] PyTorch ({usual[0]}) from the package index")
        return usual
    small = [f"{requirement}+cpu" for requirement in usual]
    if small[0].partition("==")[2] in re.split(r"[\s,]+", listed("torch", CPU_INDEX)):
        say(f"[1/2] PyTorch for the processor ({small[0]}, about 200 MB), as this machine has no NVIDIA driver")
        return ["--extra-index-url", CPU_INDEX, *small]
    say(
        f"[1/2] PyTorch ({usual[0]}), the build for NVIDIA cards: several GB, of which this machine needs a tenth, but "
        f"{small[0]} was not found at {CPU_INDEX} (no connection, or no build for this Python)"
    )
    return usual


def can_be_editable() -> bool:
    """An editable installation finds its manifest through a link, which Git on Windows may have written as text."""
    return (ROOT / "src" / "napari_embryo" / "napari.yaml").is_symlink()


def program_arguments(purpose: str, *, editable: bool) -> list[str]:
    """What to give to ``pip install`` for the program with its extras, and for the groups of this purpose."""
    program = f"{ROOT}[all,cluster]"
    groups = [word for group in GROUPS[purpose] for word in ("--group", f"{ROOT / 'pyproject.toml'}:{group}")]
    return [*(("--editable",) if editable else ()), program, *groups]


def digest(purpose: str, *, editable: bool) -> str:
    """Changes when something has to be installed."""
    files = [ROOT / "constraints.txt", ROOT / "napari.yaml", ROOT / "pyproject.toml", Path(__file__)]
    if not editable:
        files += sorted(
            path for path in (ROOT / "src").rglob("*") if path.is_file() and "__pycache__" not in path.parts
        )
    whole = hashlib.sha256(f"{purpose} {ROOT} {editable}".encode())
    for file in files:
        whole.update(hashlib.sha256(file.read_bytes()).digest())
    return whole.hexdigest()


def pip_install(arguments: list[str]) -> int:
    """Without compiling, which takes a third of the time and a fifth of the room: most modules are never imported."""
    constraints = str(ROOT / "constraints.txt")
    command = [sys.executable, "-m", "pip", "install", "--no-compile", "--constraint", constraints, *arguments]
    return subprocess.run(command, check=False).returncode


def install(purpose: str, environment: Path) -> int:
    """Bring an environment up to date; answer what pip ended with."""
    editable = can_be_editable()
    stamp = environment / "installed.sha256"
    wanted = digest(purpose, editable=editable)
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        say(f"{environment} is up to date (torch {metadata.version('torch')})")
        return 0
    stamp.unlink(missing_ok=True)
    say(f"installing into {environment}: minutes the first time, not repeated until the requirements change")
    ended = pip_install(torch_arguments())
    if ended == 0:
        say(f"[2/2] the program and the packages that {'its tests need' if GROUPS[purpose] else 'it needs'}")
        ended = pip_install(program_arguments(purpose, editable=editable))
    if ended == 0:
        stamp.write_text(wanted, encoding="utf-8")
        say("installed")
    return ended


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in GROUPS:
        print(f"usage: install.py {'|'.join(GROUPS)}", file=sys.stderr)
        return 2
    return install(arguments[0], Path(sys.prefix))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
