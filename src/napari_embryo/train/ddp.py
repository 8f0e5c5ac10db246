"""Devices that train together: each computes its part of every batch, and the gradients are added up."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import torch
from torch import distributed, nn

T = TypeVar("T")

FAILURES = (ArithmeticError, MemoryError, OSError, RuntimeError, ValueError)
"""Errors a step can raise; one raised on one device is raised on all."""


class Team:
    """The devices of a training run as seen by one of them; a single device by default.

    Parameters
    ----------
    rank
        Number of this device; device 0 validates, writes files and reports.
    size
        How many devices there are. If more than one, the process group must already be initialized.
    pipes
        On the first device: pipes to the processes waiting for work.
    """

    def __init__(self, rank: int = 0, size: int = 1, pipes: Sequence[Connection] = ()) -> None:
        self.rank, self.size, self._pipes = rank, size, pipes
        # Messages go through the processor: they are small, and a waiting process notices when another one has ended.
        self._words: Any = distributed.new_group(backend="gloo") if size > 1 else None

    def part(self, batch: Sequence[T]) -> Sequence[T]:
        """Contiguous part of a batch for this device; all parts are nearly equal in size."""
        start, end = (len(batch) * rank // self.size for rank in (self.rank, self.rank + 1))
        return batch[start:end]

    def call(self) -> None:
        """Have the other devices do what this one does next.

        Raises
        ------
        ChildProcessError
            If another process has ended.
        """
        try:
            for pipe in self._pipes:
                pipe.send(True)
        except OSError as error:
            raise self._ended() from error

    def _ended(self) -> ChildProcessError:
        return ChildProcessError(
            f"one of the processes of the {self.size} devices has ended; its last output is on standard error. "
            "The files are those of the last finished epoch; resume from there"
        )

    def gather(self, mine: T) -> list[T]:
        """The messages of all devices, in order of rank.

        Raises
        ------
        ChildProcessError
            If another process has ended.
        """
        if self.size == 1:
            return [mine]
        each: list[T | None] = [None] * self.size
        try:
            distributed.all_gather_object(each, mine, group=self._words)
        except RuntimeError as error:
            raise self._ended() from error
        return each  # type: ignore[return-value] # every place is filled

    def total(self, numbers: dict[str, float]) -> dict[str, float]:
        """Numbers of the same name summed over the devices; bit-identical on all of them."""
        sums: dict[str, float] = {}
        for each in self.gather(numbers):
            for name, number in each.items():
                sums[name] = sums.get(name, 0.0) + number
        return sums

    def share(self, first: T) -> T:
        """Copy what the first device has to every device."""
        if self.size == 1:
            return first
        held = [first]
        distributed.broadcast_object_list(held, src=0, group=self._words)
        return held[0]

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Raise an error of one device on all of them, so that none waits for another."""
        if self.size == 1:
            yield
            return
        mine: Exception | None = None
        try:
            yield
        except FAILURES as error:
            mine = error
        failed = [error for error in self.gather(mine) if error is not None]
        if failed:
            raise mine or failed[0]

    def add_up(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace the gradients by their sums over the devices; a missing gradient counts as zero."""
        if self.size == 1:
            return
        learning = [p for p in parameters if p.requires_grad]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in learning]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        distributed.all_reduce(flat)
        pieces = flat.split([p.numel() for p in learning])
        for parameter, gradient, piece in zip(learning, gradients, pieces, strict=True):
            parameter.grad = gradient.copy_(piece.view_as(gradient))


ALONE = Team()
