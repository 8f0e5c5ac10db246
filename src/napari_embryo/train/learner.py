"""One batch: forward, loss, backward, step; in smaller parts where memory is short."""

import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from math import inf, isfinite
from typing import Any, TypeVar

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from napari_embryo.models import LOSSES, SCORES
from napari_embryo.predict import choose_device, is_out_of_memory, use_bfloat16
from napari_embryo.settings import TrainSettings
from napari_embryo.train import learning
from napari_embryo.train.batches import Batch

T = TypeVar("T")


class NotFiniteError(ArithmeticError):
    """A loss or a gradient is not a number; says which."""


class Learner:
    """A network and its optimizer on a device.

    Parameters
    ----------
    model
        With ``settings`` that name its family and classes; trained in place.
    settings
        Device, precision, what learns and how fast.
    samples_per_step
        Pictures in a batch.

    Attributes
    ----------
    micro
        How many pictures are computed at once; gradients of the parts of a batch are added up. An odd batch in pairs
        has one part of three, so that no picture is alone.
    notes
        What a user should know and was not told yet.
    """

    def __init__(self, model: nn.Module, settings: TrainSettings, samples_per_step: int) -> None:
        learning.freeze(model, settings)
        self.fabric = _fabric(settings)
        self.model, self.settings, self.micro = model.to(memory_format=torch.channels_last), settings, samples_per_step
        self.optimizer = learning.build_optimizer(model, settings)
        self._net, self._stepper = self.fabric.setup(self.model, self.optimizer)
        described: Any = model.settings
        self.classes: tuple[str, ...] = described.classes
        self._loss, self._score = LOSSES[described.family], SCORES[described.family]
        self.notes: list[str] = []
        self._note_a_single_picture()

    def learn(self, batch: Batch, seed: int) -> dict[str, float]:
        """One step; the mean losses by name.

        Raises
        ------
        NotFiniteError
            When a loss or gradient is not finite; the network is what it was before the step.
        MemoryError
            When memory is too short even for one picture.
        """
        before = [buffer.clone() for buffer in self.model.buffers()]
        try:
            return self._with_less_memory(lambda: self._step(batch, seed, before))
        except (NotFiniteError, MemoryError):
            self._restore(before)
            raise

    def judge(self, batch: Batch) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Mean losses by name and scores (B,) by name, NaN where unknown; nothing is learnt."""
        self.model.eval()
        return self._with_less_memory(lambda: self._judge(batch))

    def check(self, batch: Batch) -> None:
        """Whether it can learn from such a batch at all; nothing is learnt, nothing moves.

        Raises
        ------
        ValueError
            When ``loss_weights`` names a loss that there is not, or leaves out every one.
        MemoryError
            When memory is too short even for one picture.
        """
        self.model.eval()
        with torch.no_grad():
            self._with_less_memory(lambda: self._weighted(self._losses(batch)[1]))

    def culprits(self, batch: Batch) -> list[int]:
        """Which pictures have a loss of their own that is not finite."""
        self.model.eval()
        with torch.no_grad():
            alone = [self._weighted(self._losses(part)[1]) for _, part in self._parts(batch, 1)]
        return [i for i, loss in enumerate(alone) if not isfinite(loss.item())]

    def _step(self, batch: Batch, seed: int, before: Sequence[Tensor]) -> dict[str, float]:
        self._restore(before)
        learning.set_mode(self.model, self.settings, self.micro == 1 or self.settings.frozen_batch_norm)
        torch.manual_seed(seed)
        self._stepper.zero_grad()
        means: dict[str, float] = {}
        for share, part in self._parts(batch, self.micro):
            losses = self._losses(part)[1]
            total = self._weighted(losses)
            if not isfinite(total.item()):
                raise NotFiniteError(f"the loss became {total.item()}")
            self.fabric.backward(total * share)
            _add(means, losses, share)
        norm = self.fabric.clip_gradients(
            self._net, self._stepper, max_norm=self.settings.clip_norm or inf, error_if_nonfinite=False
        )
        if norm is not None and not isfinite(norm.item()):
            raise NotFiniteError(f"the loss is finite, but its gradient became {norm.item()}")
        self._stepper.step()
        return means

    def _judge(self, batch: Batch) -> tuple[dict[str, float], dict[str, Tensor]]:
        means: dict[str, float] = {}
        scores: list[dict[str, Tensor]] = []
        with torch.no_grad():
            for share, part in self._parts(batch, self.micro):
                outputs, losses = self._losses(part)
                _add(means, losses, share)
                scores.append(self._score(outputs, self.fabric.to_device(part), self.classes))
        return means, {name: torch.cat([s[name].cpu() for s in scores]) for name in scores[0]}

    def _parts(self, batch: Batch, size: int) -> Iterator[tuple[float, Batch]]:
        """Parts of a batch and their shares of its mean losses, which are means over what is known."""
        whole, start = int(batch["known"].sum()), 0
        for count in part_sizes(len(batch["image"]), size):
            part = {name: values[start : start + count] for name, values in batch.items()}
            start += count
            yield int(part["known"].sum()) / max(1, whole), part

    def _losses(self, part: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        part = self.fabric.to_device(part)
        outputs: dict[str, Tensor] = self._net(part["image"].contiguous(memory_format=torch.channels_last))
        return outputs, self._loss(outputs, part)

    def _weighted(self, losses: dict[str, Tensor]) -> Tensor:
        weights = self.settings.loss_weights
        if unknown := sorted(weights.keys() - losses.keys()):
            raise ValueError(f"loss_weights names {', '.join(unknown)}; this family has {', '.join(losses)}")
        used = [weights.get(name, 1.0) * loss for name, loss in losses.items() if weights.get(name, 1.0)]
        if not used:
            raise ValueError(f"loss_weights leaves out every loss ({', '.join(losses)}); keep at least one")
        return torch.stack(used).sum()

    def _restore(self, before: Sequence[Tensor]) -> None:
        """A forward pass that failed has already moved the running statistics of batch normalisation."""
        for buffer, value in zip(self.model.buffers(), before, strict=True):
            buffer.copy_(value)

    def _with_less_memory(self, attempt: Callable[[], T]) -> T:
        while True:
            try:
                return attempt()
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                if self.micro == 1:
                    raise MemoryError(
                        f"out of memory on {self.fabric.device} for a single picture; choose a smaller input or "
                        "network, or close other programs"
                    ) from error
            # Here the error and the activations it held are gone.
            self._give_way()

    def _give_way(self) -> None:
        self.micro //= 2
        self.notes.append(f"out of memory on {self.fabric.device}: going on with {self.micro} pictures at a time")
        self._note_a_single_picture()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _note_a_single_picture(self) -> None:
        """Its own statistics would be noise, or none at all where a map has a single pixel."""
        if self.micro == 1 and any(learning.batch_norms(self.model)):
            self.notes.append("one picture at a time: batch normalisation keeps its statistics")


def part_sizes(count: int, size: int) -> list[int]:
    """Nearly equal parts of ``count`` pictures, as few as ``size`` allows; none of one picture unless ``size`` is 1.

    A single picture has no statistics for batch normalisation, so an odd count in pairs ends with three.
    """
    parts = -(-count // size)
    if size > 1:
        parts = min(parts, max(1, count // 2))
    fewer, larger = divmod(count, parts)
    return [fewer + 1] * larger + [fewer] * (parts - larger)


def _add(means: dict[str, float], losses: dict[str, Tensor], share: float) -> None:
    for name, loss in losses.items():
        means[name] = means.get(name, 0.0) + loss.item() * share


def _fabric(settings: TrainSettings) -> Fabric:
    device = choose_device(settings.device)
    # It would announce on stderr what the recipe says already.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    precision = "bf16-mixed" if use_bfloat16(settings.precision, device) else "32-true"
    return Fabric(accelerator=device.type, devices=1, precision=precision)  # type: ignore[arg-type]


def step_seed(seed: int, step: int) -> int:
    """Of the dropout in one step, whatever happened before it; so nothing about chance has to be saved."""
    return int(np.random.SeedSequence((seed, step)).generate_state(1)[0])
