"""Main program of a worker process: reads tasks from standard input and writes yielded values to standard output.

Run by :class:`napari_embryo.batch.pool.ProcessPool`.
"""

import os
import pickle
import queue
import signal
import sys
import threading
from typing import Any, BinaryIO


def main() -> None:
    """Work until the input ends, which means that the main process has ended."""
    for stop in (signal.SIGINT, signal.SIGTERM):  # meant for the main process
        signal.signal(stop, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output of libraries must not mix with the answers
    tasks: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, tasks), daemon=True).start()
    while True:
        _do(tasks.get(), answers)


def send(stream: BinaryIO, message: bytes) -> None:
    """Write a message, preceded by its length."""
    stream.write(len(message).to_bytes(8, "little") + message)
    stream.flush()


def receive(stream: BinaryIO) -> bytes:
    """Read the next message.

    Raises
    ------
    EOFError
        If there is none, or only part of one.
    """
    size = int.from_bytes(_exactly(stream, 8), "little")
    return _exactly(stream, size)


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data


def _listen(source: BinaryIO, tasks: "queue.SimpleQueue[bytes]") -> None:
    try:
        while True:
            tasks.put(receive(source))
    except EOFError:
        os._exit(0)


def _do(task: bytes, answers: BinaryIO) -> None:
    try:
        call, args = pickle.loads(task)
        for item in call(*args):
            _answer(answers, "yielded", item)
    except Exception as error:  # noqa: BLE001 - whatever it was, it is told to the process that leads the run
        _answer(answers, "raised", error)
    else:
        _answer(answers, "done", None)


def _answer(answers: BinaryIO, kind: str, item: Any) -> None:
    try:
        said = pickle.dumps((kind, item))
        pickle.loads(said)
    except Exception as error:  # noqa: BLE001 - pickling runs foreign code
        said = pickle.dumps(("raised", RuntimeError(f"{type(item).__name__}: {item} ({error})")))
    send(answers, said)
