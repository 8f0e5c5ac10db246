"""A training run in a process of its own: started, listened to, paused, stopped, never left behind."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from napari_embryo import stream
from napari_embryo.image import Progress
from napari_embryo.widgets._worker import Steps

GRACE = 120.0
"""Seconds that a process which was told to end may take for the step under way and for saving."""

LAST_LINES = 12
"""How much of what a process said before it died is shown."""


def command(recipe: Path, out: Path, resume: bool = False) -> tuple[str, ...]:
    """What starts a training run; ``-P``: a file in the current folder must not stand in for a library."""
    words = (sys.executable, "-P", "-m", "napari_embryo", "train", str(recipe), "--out", str(out), "--stream")
    return (*words, "--resume") if resume else words


class Child:
    """A process that tells what it does, one JSON object a line, and listens on its standard input.

    It stops by itself, keeping what it has, when its input is closed: also when this program is killed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._unsent: list[str] = []
        self._closed = False

    def events(self, words: Sequence[str]) -> Steps[stream.Finished]:
        """Start it; every event is the item of a :class:`Progress`; returns the last one.

        Parameters
        ----------
        words
            Program and arguments.

        Raises
        ------
        ValueError
            With the reason that it gave for not going on.
        ChildProcessError
            When it ended without a word; with the last lines of its standard error.
        """
        with TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
            process = self._start(words, errors)
            try:
                finished = yield from _listen(process)
                if finished is None:
                    raise ChildProcessError(_died(process.wait(), errors))
                return finished
            finally:
                self.close()
                threading.Thread(target=_see_off, args=(process,), daemon=True).start()

    def pause(self) -> None:
        """After the step under way."""
        self._say("pause")

    def resume(self) -> None:
        self._say("resume")

    def stop(self) -> None:
        """After the step under way; the best and the last state are kept."""
        self._say("stop")

    def close(self) -> None:
        """As :meth:`stop`, for when nobody listens any more; ended by force when it takes too long."""
        with self._lock:
            process, self._closed = self._process, True
        if process is None or process.stdin is None or process.stdin.closed:
            return
        with suppress(OSError):
            process.stdin.close()
        if process.poll() is None:
            timer = threading.Timer(GRACE, process.kill)
            timer.daemon = True
            timer.start()

    def _start(self, words: Sequence[str], errors: IO[str]) -> subprocess.Popen[str]:
        # Arguments as a list: no shell reads them.
        process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
            env={**os.environ, "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1"},
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
        with self._lock:
            self._process, early, closed = process, self._unsent, self._closed
        for word in early:
            self._say(word)
        if closed:
            self.close()
        return process

    def _say(self, word: str) -> None:
        with self._lock:
            if self._process is None:
                self._unsent = [*self._unsent, word]
                return
            stdin = self._process.stdin
            # It may have ended in this very moment.
            if stdin is not None and not stdin.closed:
                with suppress(OSError):
                    stdin.write(f"{word}\n")
                    stdin.flush()


def _listen(process: "subprocess.Popen[str]") -> Steps[stream.Finished | None]:
    done, total, clock = 0, 0, Clock()
    for line in process.stdout or ():
        if not line.startswith("{"):  # a library's own words
            continue
        event = stream.decode(line)
        if event.event == "error":
            raise ValueError(event.message)
        if event.event == "finished":
            return event
        done, total = getattr(event, "done", done), getattr(event, "total", total)
        left = clock.tick(done, total) if event.event == "step" else ""
        yield Progress(done, total, f"{said(event)}{left}", event)
    return None


class Clock:
    """How long the steps that are left will take, from those of late."""

    def __init__(self) -> None:
        self._last, self._mean = 0.0, 0.0

    def tick(self, done: int, total: int) -> str:
        """A step is done; says nothing before the second one."""
        now, before = time.monotonic(), self._last
        self._last = now
        if not before:
            return ""
        self._mean += (now - before - self._mean) * (0.05 if self._mean else 1)
        return f", about {lasting(self._mean * (total - done))} left"


def lasting(seconds: float) -> str:
    """Such as "40 s", "12 min", "3.5 h"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _see_off(process: "subprocess.Popen[str]") -> None:
    """Read on, so that its last words do not hold it up, until it has ended."""
    with process:
        for _ in process.stdout or ():
            pass


def said(event: stream.Event) -> str:
    """An event in a few words."""
    match event:
        case stream.Step():
            return f"epoch {event.epoch}, loss {total_loss(event.losses):.3g}"
        case stream.Epoch():
            return f"epoch {event.epoch}, validation loss {total_loss(event.validation):.3g}"
        case stream.Noted():
            return event.note.text
        case stream.Paused():
            return "paused. Resume goes on; Stop ends and keeps the best and the last state."
        case stream.Report():
            return "the pictures are read; loading the network …"
    return "going on …"


def total_loss(losses: Mapping[str, float]) -> float:
    """The sum that is trained on."""
    return losses["total"] if "total" in losses else sum(losses.values())


def _died(code: int, errors: IO[str]) -> str:
    errors.seek(0)
    last = "".join(errors.readlines()[-LAST_LINES:]).strip()
    return f"the training process ended with code {code}. Its last words:\n{last or '(none)'}"
