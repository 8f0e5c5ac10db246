"""The folder of a run: locked for one training at a time, with enough disk space."""

import errno
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

LOCK, OWNER = ".training.lock", ".training.owner"


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Lock ``out`` for one training; the system releases the lock of a process that died.

    A folder created for it is removed if it stays empty.

    Raises
    ------
    ValueError
        If a training is in progress there; the message names its owner.
    OSError
        If the folder is not writable.
    """
    with ExitStack() as stack:
        _make(out, stack)
        lock = FileLock(out / LOCK, timeout=0, thread_local=False)
        try:
            lock.acquire()
        except Timeout as error:
            raise ValueError(
                f"{out}: a training is in progress there ({_owner(out)}); wait for it, stop it, or name another folder"
            ) from error
        except OSError as error:
            raise _unwritable(out, error) from error
        stack.callback(_remove, out / LOCK)
        stack.callback(lock.release)
        stack.callback(_remove, out / OWNER)
        (out / OWNER).write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield


def _make(out: Path, stack: ExitStack) -> None:
    for folder in (folder for folder in reversed((out, *out.parents)) if not folder.exists()):
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise _unwritable(out, error) from error
        stack.callback(_remove_empty, folder)


def _unwritable(out: Path, error: OSError) -> OSError:
    reason = error.strerror or str(error)
    return OSError(error.errno, f"{out}: cannot write there ({reason}); name another folder with --out")


def _owner(out: Path) -> str:
    try:
        return (out / OWNER).read_text(encoding="utf-8")
    except OSError:
        return "it has just started"


def _remove(path: Path) -> None:
    # Windows does not remove a file that another process has open.
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def check_room(folder: Path, sizes: Mapping[Path, int]) -> None:
    """Check that the disk has room for the files; each is written completely before it replaces its predecessor.

    Raises
    ------
    OSError
        If there is too little space; the message says how much is free and how much is needed.
    """
    there = sum(path.stat().st_size for path in sizes if path.is_file())
    needed, free = sum(sizes.values()) + max(sizes.values()) - there, shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            errno.ENOSPC,
            f"{folder}: {free / 1e6:.0f} MB are free, but the checkpoints need {needed / 1e6:.0f} MB; free some space "
            "or name another folder",
        )
