"""Worker processes that may crash, hang or run out of memory without affecting the batch."""

import os
import pickle
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psutil

from napari_embryo.batch.worker import receive, send

_WATCH_EVERY = 0.25
"""Seconds between checks of time and memory."""


class WorkerError(RuntimeError):
    """A worker process ended before its work was done.

    Parameters
    ----------
    reason
        Why it ended.
    came
        Values yielded before.
    is_overdue
        Whether it exceeded the time limit.
    """

    def __init__(self, reason: str, came: Sequence[Any] = (), is_overdue: bool = False) -> None:
        super().__init__(reason)
        self.came, self.is_overdue = list(came), is_overdue


def with_what_came(error: Exception, came: Sequence[Any]) -> Exception:
    """Attach values yielded before an error to it, so that they are not lost."""
    error.came = list(came)  # type: ignore[attr-defined]
    return error


class ProcessPool(Executor):
    """Runs generator functions in separate processes; a future returns the list of yielded values.

    The processes run a module of this package and nothing of the program that started them, so that no window is opened
    again. They start with the first task, live as long as the pool, and are replaced if they die.

    Parameters
    ----------
    environments
        Additional environment variables of each process; determines the number of processes.
    time_limit
        Largest time in seconds between two yields of a process.
    memory_limit
        Memory limit of a process in bytes; None for no limit.
    """

    def __init__(
        self,
        environments: Sequence[Mapping[str, str]],
        time_limit: float = 600.0,
        memory_limit: float | None = None,
    ) -> None:
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._seats = [_Seat(environment, self._tasks) for environment in environments]
        self.time_limit, self.memory_limit = time_limit, memory_limit
        self._over, self._is_closed = threading.Event(), False
        threading.Thread(target=self._watch, name="batch watch", daemon=True).start()
        for seat in self._seats:
            seat.thread.start()

    @property
    def size(self) -> int:
        """Number of processes."""
        return len(self._seats)

    def submit(self, call: Callable[..., Iterable[Any]], /, *args: Any) -> "Future[Any]":  # type: ignore[override]
        """Run ``call`` in the next free process.

        The future raises the exception of ``call``, or :class:`WorkerError` with the values yielded before the process
        ended.
        """
        if self._is_closed:
            raise RuntimeError("this pool has been shut down")
        task = _Task(pickle.dumps((call, args)))
        self._tasks.put(task)
        return task.future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes; with ``cancel_futures`` immediately."""
        self._is_closed = True
        if cancel_futures:
            with suppress(queue.Empty):
                while task := self._tasks.get_nowait():
                    task.future.cancel()
        for _ in self._seats:
            self._tasks.put(None)
        if cancel_futures:
            for seat in self._seats:
                seat.kill("the run was stopped")
        if wait:
            for seat in self._seats:
                seat.thread.join()
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(_WATCH_EVERY):
            for seat in self._seats:
                seat.check(self.time_limit, self.memory_limit)


@dataclass
class _Task:
    call: bytes
    future: "Future[Any]" = field(default_factory=Future)


class _Seat:
    """A slot for one worker process, with the thread that communicates with it."""

    def __init__(self, environment: Mapping[str, str], tasks: "queue.SimpleQueue[_Task | None]") -> None:
        self._environment, self._tasks = environment, tasks
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._silent_since: float | None = None
        self._killed_because = ""
        self._is_overdue = False
        self.thread = threading.Thread(target=self._serve, name="batch worker", daemon=True)

    def _serve(self) -> None:
        while (task := self._tasks.get()) is not None:
            if not task.future.set_running_or_notify_cancel():
                continue
            try:
                task.future.set_result(self._ask(task.call))
            except BaseException as error:  # noqa: BLE001 - any error belongs to the future
                task.future.set_exception(error)
        self._close()

    def _ask(self, call: bytes) -> list[Any]:
        """Send a task and collect the yielded values."""
        came: list[Any] = []
        try:
            process = self._started()
            send(process.stdin, call)  # type: ignore[arg-type]
            while True:
                self._silent_since = time.monotonic()
                kind, item = pickle.loads(receive(process.stdout))  # type: ignore[arg-type]
                if kind == "yielded":
                    came.append(item)
                elif kind == "raised":
                    raise with_what_came(item, came)
                else:
                    return came
        except (EOFError, ConnectionError) as error:
            raise WorkerError(self._last_words(), came, self._is_overdue) from error
        finally:
            self._silent_since = None

    def _started(self) -> "subprocess.Popen[bytes]":
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._close_pipes()
                self._killed_because, self._is_overdue = "", False
                self._process = start_worker(self._environment)
            return self._process

    def check(self, time_limit: float, memory_limit: float | None) -> None:
        """End a process that exceeds the time or memory limit."""
        process, since = self._process, self._silent_since
        if process is None or since is None or process.poll() is not None:
            return
        if time.monotonic() - since > time_limit:
            self._is_overdue = True
            self.kill(f"it took longer than {time_limit:g} s")
        elif memory_limit is not None and _memory_of(process.pid) > memory_limit:
            self.kill(f"it needed more than {memory_limit / 2**30:.1f} GiB of memory")

    def kill(self, why: str) -> None:
        """End the process immediately."""
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                self._killed_because = why
                self._process.kill()

    def _last_words(self) -> str:
        """Why the process ended."""
        code = self._process.wait() if self._process else 0
        if self._killed_because:
            return self._killed_because
        if code < 0:
            return f"its process was ended by signal {-code}{_SIGNALS.get(-code, '')}"
        return f"its process ended with exit code {code}"

    def _close(self) -> None:
        with self._lock:
            self._close_pipes()  # without input the process ends by itself
            if self._process is not None:
                try:
                    self._process.wait(5)
                except subprocess.TimeoutExpired:
                    self._process.kill()
                    self._process.wait()

    def _close_pipes(self) -> None:
        pipes = () if self._process is None else (self._process.stdin, self._process.stdout)
        for pipe in filter(None, pipes):
            with suppress(OSError):
                pipe.close()


_SIGNALS = {
    4: " (illegal instruction)",
    6: " (aborted)",
    7: " (bus error)",
    8: " (arithmetic error)",
    9: " (killed; often because memory ran out)",
    11: " (segmentation fault)",
}


def _memory_of(pid: int) -> float:
    try:
        return float(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0.0


def start_worker(environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Start a process that runs :mod:`napari_embryo.batch.worker`, with the module search path of this process."""
    return subprocess.Popen(
        [sys.executable, "-c", "from napari_embryo.batch.worker import main; main()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        start_new_session=True,  # Ctrl-C in the terminal is handled by the main process
    )
