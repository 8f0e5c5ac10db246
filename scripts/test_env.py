"""Make the environment of ``tox run``, or run a command in it.

    python scripts/test_env.py make
    python scripts/test_env.py run COMMAND [ARGUMENT ...]

For the other environments of tox.ini: tox never shares one between two names, and a second copy of torch is several GB.
"""

import os
import shutil
import subprocess
import sys

NAME = "py"


def outer_environ() -> dict[str, str]:
    """Our surroundings without what the tox around us set for itself."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TOX_") or name == "TOX_WORK_DIR"}


def find_tox() -> list[str]:
    """The tox that runs us: on the PATH, or beside the Python that our environment was made from."""
    if found := shutil.which("tox"):
        return [found]
    beside = [getattr(sys, "_base_executable", sys.executable), "-m", "tox"]
    if subprocess.run([*beside, "--version"], capture_output=True, check=False).returncode == 0:
        return beside
    sys.exit("tox is not on the PATH; activate the environment that it was installed in, then try again")


def main(arguments: list[str]) -> int:
    match arguments:
        case ["make"]:
            print("The environment is made or brought up to date; the first time, PyTorch takes minutes.", flush=True)
            command = ["run", "-e", NAME, "--notest"]
        case ["run", _, *_]:
            command = ["exec", "-qq", "-e", NAME, "--", *arguments[1:]]
        case _:
            sys.exit("usage: test_env.py make | run COMMAND [ARGUMENT ...]")
    return subprocess.run([*find_tox(), *command], env=outer_environ(), check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
