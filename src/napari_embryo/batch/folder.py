"""The folder of results: its lock, and cleaning up after interrupted runs."""

import errno
import getpass
import itertools
import json
import os
import re
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from napari_embryo.notes import Note

OWN = ".napari-embryo"
"""Name of the folder for the journal and the lock of a run."""
JOURNAL = "journal.sqlite"

_LEFTOVER = re.compile(r"\..+\.[0-9a-f]{8}\.part")


class BusyError(ValueError):
    """Another run is writing to the folder."""


@contextmanager
def claimed(out: Path) -> Iterator[Path]:
    """Lock a folder of results for one run; the folder is created if needed.

    Yields
    ------
    Path
        Folder for the journal.

    Raises
    ------
    BusyError
        If another run holds the lock; the message says which.
    """
    own = out / OWN
    own.mkdir(parents=True, exist_ok=True)
    holder = own / "holder.json"
    lock = FileLock(own / "lock", thread_local=False)  # a window closes in one thread what another has opened
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        by = _holder_text(holder)
        raise BusyError(f"{out}: {by} is writing to this folder. Wait for it or stop it.") from error
    try:
        holder.write_text(json.dumps(_me()), encoding="utf-8")
        yield own
    finally:
        with suppress(OSError):
            holder.unlink()
        lock.release()


def _me() -> dict[str, str | int]:
    return {
        "process": os.getpid(),
        "host": socket.gethostname(),
        "user": _user(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        return "unknown"


def _holder_text(holder: Path) -> str:
    try:
        by = json.loads(holder.read_text(encoding="utf-8"))
        return f"process {by['process']} on {by['host']} (user {by['user']}, since {by['since']})"
    except (OSError, ValueError, KeyError):
        return "another run"


def remove_leftovers(out: Path, folders: Iterable[str]) -> int:
    """Remove the unfinished files of an interrupted run; return their number.

    Parameters
    ----------
    out
        The folder of results.
    folders
        Its subfolders with results.
    """
    left = [path for folder in {"", OWN, *folders} for path in _leftovers(out / folder)]
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)


def _leftovers(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [Path(entry.path) for entry in entries if _LEFTOVER.fullmatch(entry.name)]
    except OSError:
        return []


def set_aside(path: Path) -> tuple[Note, ...]:
    """Rename an existing file of unknown origin, so that it is not overwritten; return a note."""
    if not path.exists():
        return ()
    names = (path.with_name(f"{path.stem}_before{'' if i == 1 else i}{path.suffix}") for i in itertools.count(1))
    kept = next(name for name in names if not name.exists())
    path.rename(kept)
    return (Note("info", f"an existing {path.name} of another origin was renamed to {kept.name}"),)


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error or its cause is a full disk."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    return False
