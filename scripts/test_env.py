"""Run a command in the environment of ``tox run``, which is made where it is missing.

    python scripts/test_env.py COMMAND [ARGUMENT ...]

For lint and bench of tox.ini: tox never shares an environment between two names, and torch is several GB.
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


def main(command: list[str]) -> int:
    if not command:
        sys.exit("usage: test_env.py COMMAND [ARGUMENT ...]")
    inner = [*find_tox(), "exec", "-qq", "-e", NAME, "--", *command]
    return subprocess.run(inner, env=outer_environ(), check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
