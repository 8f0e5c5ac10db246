"""Processes of the other devices: started, called for every step, and always ended."""

import atexit
import pickle
import signal
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch import distributed

from napari_embryo.data import Sample
from napari_embryo.models import Network
from napari_embryo.predict import choose_device
from napari_embryo.settings import Recipe, TrainSettings
from napari_embryo.train import loader, optim
from napari_embryo.train.course import Course
from napari_embryo.train.ddp import ALONE, FAILURES, Team

GRACE = 10.0
"""Seconds a helper process may take to end before it is killed."""
LONGEST_WAIT = timedelta(minutes=30)
"""How long to wait for another device within a step."""


def check_devices(settings: TrainSettings) -> None:
    """Check that as many devices are available as requested.

    Raises
    ------
    ValueError
        If there are fewer, or they cannot work together; the message says how many there are.
    """
    if settings.devices == 1:
        return
    device = choose_device(settings.device)
    # Any number of processes can share a processor.
    there = {"cpu": settings.devices, "cuda": torch.cuda.device_count()}.get(device.type, 1)
    if there < settings.devices:
        raise ValueError(
            f"devices: {settings.devices} was given, but this computer has {there} of type {device.type!r}; "
            f"use {there} or fewer"
        )
    if device.type == "cuda" and not distributed.is_nccl_available():
        raise ValueError(
            f"devices: {settings.devices} was given, but this build of torch has no NCCL, which several cards need; "
            "use devices: 1"
        )


def _check_parts(model: Network, training: Sequence[Sample], recipe: Recipe) -> None:
    settings = recipe.training
    size = min(settings.batch_size, len(loader.visited(training, recipe.data.repeats)))
    if size < settings.devices:
        raise ValueError(
            f"devices: {settings.devices} was given, but a batch has {size} images; every device needs at least one"
        )
    on_processor = choose_device(settings.device).type == "cpu"
    if on_processor and not settings.frozen_batch_norm and any(optim.batch_norms(model)):
        raise ValueError(
            f"devices: {settings.devices} was given, but batch normalization cannot be shared on a processor; "
            "use frozen_batch_norm: true or devices: 1"
        )


@contextmanager
def team(model: Network, training: Sequence[Sample], recipe: Recipe) -> Iterator[Team]:
    """The devices of a training run; every device but the first has a process of its own while it lasts.

    Parameters
    ----------
    model, training, recipe
        As in :func:`napari_embryo.train.train`.

    Raises
    ------
    ValueError
        If fewer devices are available than requested, or they cannot share a batch.
    ChildProcessError
        If a process could not be started.
    """
    if recipe.training.devices == 1:
        yield ALONE
        return
    check_devices(recipe.training)
    _check_parts(model, training, recipe)
    size = recipe.training.devices
    store = _store(0, size, is_first=True)
    # By value: tensors that torch passes to a process would share their memory.
    lesson = pickle.dumps((model, training, recipe))
    helpers = [_start(rank, store.port, lesson) for rank in range(1, size)]
    # Also if the caller abandons the training and exits.
    atexit.register(_dismiss, helpers)
    try:
        for pipe, _ in helpers:
            _wait(pipe)
        _join(store, 0, recipe.training)
        yield Team(0, size, [pipe for pipe, _ in helpers])
    finally:
        atexit.unregister(_dismiss)
        _dismiss(helpers)


Helper = tuple[Connection, BaseProcess]


def _start(rank: int, port: int, lesson: bytes) -> Helper:
    # A fresh interpreter: a forked process cannot use a graphics card.
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_help, args=(rank, port, lesson, theirs), name=f"card {rank}")
    process.start()
    theirs.close()
    return ours, process


def _wait(pipe: Connection) -> None:
    try:
        pipe.recv()
    except EOFError as error:
        raise ChildProcessError(
            "the process of another device could not be started; its output is on standard error. A script that "
            "trains on several devices needs 'if __name__ == \"__main__\":' around it"
        ) from error


def _store(port: int, size: int, *, is_first: bool) -> Any:
    """Rendezvous of the processes on this computer; the first one binds a free port (0)."""
    return distributed.TCPStore(  # type: ignore[attr-defined]
        "127.0.0.1", port, size, is_master=is_first, wait_for_workers=False
    )


def _join(store: Any, rank: int, settings: TrainSettings) -> None:
    kind = choose_device(settings.device).type
    if kind == "cuda":
        torch.cuda.set_device(rank)
    backend = "nccl" if kind == "cuda" else "gloo"
    distributed.init_process_group(backend, store=store, rank=rank, world_size=settings.devices, timeout=LONGEST_WAIT)


def _help(rank: int, port: int, lesson: bytes, pipe: Connection) -> None:
    """Main loop of another device's process: a step whenever the first one asks, until the connection closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    model, training, recipe = pickle.loads(lesson)
    store = _store(port, recipe.training.devices, is_first=False)
    pipe.send("ready")
    _join(store, rank, recipe.training)
    course = Course(model, training, recipe, Team(rank, recipe.training.devices))
    with suppress(*FAILURES):  # the first device has these too and reports them
        if _is_called(pipe):
            course.level()
        with closing(course.batches()) as source:
            while _is_called(pipe):
                course.step(source)
    distributed.destroy_process_group()


def _is_called(pipe: Connection) -> bool:
    try:
        return bool(pipe.recv())
    except (EOFError, OSError):
        return False


def _dismiss(helpers: Sequence[Helper]) -> None:
    for pipe, _ in helpers:
        pipe.close()
    for _, process in helpers:
        process.join(GRACE)
        process.kill()
    if distributed.is_initialized():
        distributed.destroy_process_group()
