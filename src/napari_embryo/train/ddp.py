"""Cards that learn together: each one its part of every batch, their gradients added up."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import torch
from torch import distributed, nn

T = TypeVar("T")

FAILURES = (ArithmeticError, MemoryError, OSError, RuntimeError, ValueError)
"""What a step can end with; it ends with it on every card."""


class Team:
    """The cards of a training, as one of them sees them; alone where nothing is said.

    Parameters
    ----------
    rank
        Which of them this is; 0 judges, writes and tells.
    size
        How many there are. Of more than one, the process group has to be joined already.
    pipes
        Of the first card, to the processes that wait to be called.
    """

    def __init__(self, rank: int = 0, size: int = 1, pipes: Sequence[Connection] = ()) -> None:
        self.rank, self.size, self._pipes = rank, size, pipes
        # Words go over the processor: small, and whoever waits for them learns of a process that has ended.
        self._words: Any = distributed.new_group(backend="gloo") if size > 1 else None

    def part(self, batch: Sequence[T]) -> Sequence[T]:
        """What this card learns of a batch: neighbors, nearly as many as every other."""
        start, end = (len(batch) * rank // self.size for rank in (self.rank, self.rank + 1))
        return batch[start:end]

    def call(self) -> None:
        """Have the others do what this card does next.

        Raises
        ------
        ChildProcessError
            When one has ended.
        """
        try:
            for pipe in self._pipes:
                pipe.send(True)
        except OSError as error:
            raise self._ended() from error

    def _ended(self) -> ChildProcessError:
        return ChildProcessError(
            f"the process of another of the {self.size} devices has ended; what it said last is on standard error. "
            "The files are those of the last epoch: resume from there"
        )

    def gather(self, mine: T) -> list[T]:
        """What every card has to say, in their order.

        Raises
        ------
        ChildProcessError
            When another one has ended.
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
        """Numbers of the same name added up over the cards; the same on all of them to the bit."""
        sums: dict[str, float] = {}
        for each in self.gather(numbers):
            for name, number in each.items():
                sums[name] = sums.get(name, 0.0) + number
        return sums

    def share(self, first: T) -> T:
        """What the first card has, on every card."""
        if self.size == 1:
            return first
        held = [first]
        distributed.broadcast_object_list(held, src=0, group=self._words)
        return held[0]

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """What fails on one card fails on every one, so that none waits for another."""
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
        """Replace the gradients by their sums over the cards; where one has none, it is zero."""
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
