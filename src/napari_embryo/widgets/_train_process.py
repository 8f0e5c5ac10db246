"""A training run in a separate process: started, monitored, paused, stopped, and always ended."""

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
"""Seconds a process may take to finish the current step and save when asked to end."""

LAST_LINES = 12
"""How much of the last output of a failed process is shown."""


def command(recipe: Path, out: Path, resume: bool = False) -> tuple[str, ...]:
    """Command that starts a training run; ``-P`` keeps files in the current folder from shadowing libraries."""
    words = (sys.executable, "-P", "-m", "napari_embryo", "train", str(recipe), "--out", str(out), "--stream")
    return (*words, "--resume") if resume else words


class Child:
    """A process that writes JSON lines and reads commands from its standard input.

    It stops by itself and keeps its results when its input is closed, even if this program is killed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._unsent: list[str] = []
        self._closed = False

    def events(self, words: Sequence[str]) -> Steps[stream.Finished]:
        """Start it; yield every event as the item of a :class:`Progress` and return the last one.

        Parameters
        ----------
        words
            Program and arguments.

        Raises
        ------
        ValueError
            If it reported an error; the message is its reason.
        ChildProcessError
            If it ended without a report; the message has the last lines of its standard error.
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
        """Pause after the current step."""
        self._say("pause")

    def resume(self) -> None:
        self._say("resume")

    def stop(self) -> None:
        """Stop after the current step; the best and the last state are kept."""
        self._say("stop")

    def close(self) -> None:
        """Like :meth:`stop`, when nobody reads events any more; killed if it takes too long."""
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
        # Arguments as a list, without a shell.
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
            # It may have ended in the meantime.
            if stdin is not None and not stdin.closed:
                with suppress(OSError):
                    stdin.write(f"{word}\n")
                    stdin.flush()


def _listen(process: "subprocess.Popen[str]") -> Steps[stream.Finished | None]:
    done, total, clock = 0, 0, Clock()
    for line in process.stdout or ():
        if not line.startswith("{"):  # output of a library
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
    """Estimates the remaining time from recent steps."""

    def __init__(self) -> None:
        self._last, self._mean = 0.0, 0.0

    def tick(self, done: int, total: int) -> str:
        """Record a finished step; no estimate before the second one."""
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
    """Read until it has ended, so that its last output does not block it."""
    with process:
        for _ in process.stdout or ():
            pass


def said(event: stream.Event) -> str:
    """Summarize an event."""
    match event:
        case stream.Step():
            return f"epoch {event.epoch}, loss {total_loss(event.losses):.3g}"
        case stream.Epoch():
            return f"epoch {event.epoch}, validation loss {total_loss(event.validation):.3g}"
        case stream.Noted():
            return event.note.text
        case stream.Paused():
            return "paused. Resume continues; Stop ends training and keeps the best and the last state."
        case stream.Report():
            return "the images have been read; loading the network …"
    return "resuming …"


def total_loss(losses: Mapping[str, float]) -> float:
    """The sum of losses that is minimized."""
    return losses["total"] if "total" in losses else sum(losses.values())


def _died(code: int, errors: IO[str]) -> str:
    errors.seek(0)
    last = "".join(errors.readlines()[-LAST_LINES:]).strip()
    return f"the training process ended with code {code}. Last output:\n{last or '(none)'}"
