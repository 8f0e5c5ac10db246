"""One batch: forward, loss, backward, step; in smaller parts if memory runs out."""

import gc
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import inf, isfinite
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch import Tensor, nn

from napari_embryo.models import NETWORKS, Network, Watch
from napari_embryo.notes import Note
from napari_embryo.predict import check_precision, choose_device, is_out_of_memory, use_bfloat16
from napari_embryo.settings import Precision, TrainSettings
from napari_embryo.train import optim
from napari_embryo.train.ddp import ALONE, Team
from napari_embryo.train.loader import Batch

T = TypeVar("T")

SKIPPED_AT_MOST = 20
"""Consecutive steps whose float16 gradient may overflow; the loss scale is halved each time."""


class NotFiniteError(ArithmeticError):
    """A loss or gradient is not finite; the message says which."""


class Learner:
    """A network and its optimizer on a device.

    Parameters
    ----------
    model
        Its ``settings`` name its family and classes; trained in place.
    settings
        Device, precision, which parts learn and how fast.
    samples_per_step
        Images per batch, including those of the other devices.
    team
        The devices that share every batch.

    Attributes
    ----------
    micro
        Images computed at once; the gradients of the parts of a batch are added up. An odd batch split into pairs
        gets one part of three, so that no image is alone. Devices that share a batch do not split their parts.
    watcher
        Sees the outputs of every training and validation batch.
    notes
        Messages for the user that have not been reported yet.

    Raises
    ------
    ValueError
        If the network has no such part, or the device is unavailable or does not support the precision.
    """

    def __init__(self, model: Network, settings: TrainSettings, samples_per_step: int, team: Team = ALONE) -> None:
        optim.freeze(model, settings)
        described = model.settings
        device = choose_device(settings.device)
        half = training_precision(settings.precision, device)
        mixed = None if half is None else MixedPrecision(half, device.type)
        self._scaler = None if mixed is None else mixed.scaler
        self._skipped = 0
        self.fabric, self.team = _fabric(device, mixed, team), team
        if team.size > 1 and device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        self.model, self.settings, self.micro = model.to(memory_format=torch.channels_last), settings, samples_per_step
        self.optimizer = optim.build_optimizer(model, settings)
        self._net, self._stepper = self.fabric.setup(self.model, self.optimizer)
        self.classes, network = described.classes, NETWORKS[described.family]
        self._loss, self._score, self.counts = network.loss, network.score, network.counts
        self._is_guided, self.watcher = network.guided, Watcher(network.watch)
        self.notes: list[Note] = []
        self._note_a_single_picture()

    def learn(self, batch: Batch, seed: int) -> dict[str, float]:
        """Take one step and return the mean losses by name, without those known for no image of the batch.

        A float16 gradient that overflows skips the step; it is an error only if it happens many times in a row.

        Raises
        ------
        NotFiniteError
            If a loss or gradient is not finite; the network is left as it was before the step.
        MemoryError
            If memory does not suffice even for one image.
        """
        before = [buffer.clone() for buffer in self.model.buffers()]
        try:
            if self.team.size > 1:
                return self._share_a_step(batch, seed, before)
            return self._with_less_memory(lambda: self._step(batch, seed, self.micro, before))
        except (NotFiniteError, MemoryError):
            self._restore(before)
            raise

    def judge(self, batch: Batch) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Mean losses by name where known, and scores (B,) by name, NaN where unknown; nothing is learned."""
        self.model.eval()
        return self._with_less_memory(lambda: self._judge(batch))

    def check(self, batch: Batch) -> None:
        """Check that such a batch can be learned from; nothing is changed.

        Raises
        ------
        ValueError
            If ``loss_weights`` names an unknown loss or leaves out every loss.
        MemoryError
            If memory does not suffice even for one image.
        """
        self._check_weights(self.counts(batch))
        self.model.eval()
        with torch.no_grad():
            self._with_less_memory(lambda: self._losses(batch))

    def culprits(self, batch: Batch) -> list[int]:
        """The images whose individual loss is not finite."""
        self.model.eval()
        with torch.no_grad():
            alone = [self._total(*self._losses(part), self.counts(part)) for part in _parts(batch, 1)]
        return [i for i, loss in enumerate(alone) if not isfinite(loss.item())]

    def scaler_state(self) -> dict[str, float]:
        """State of the float16 loss scaler; empty in other precisions."""
        return {} if self._scaler is None else self._scaler.state_dict()

    def load_scaler(self, state: dict[str, float]) -> None:
        """Restore a loss scale; an empty one (from another precision) changes nothing."""
        if self._scaler is not None and state:
            self._scaler.load_state_dict(state)

    def _share_a_step(self, batch: Batch, seed: int, before: Sequence[Tensor]) -> dict[str, float]:
        """Compute the whole part of every device at once: no device may need more passes than another."""
        try:
            return self._step(batch, seed, len(batch["image"]), before)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise MemoryError(
                f"out of memory while {self.team.size} devices share a batch; choose a smaller batch_size, input or "
                "network, or more devices"
            ) from error

    def _step(self, batch: Batch, seed: int, at_once: int, before: Sequence[Tensor]) -> dict[str, float]:
        self._restore(before)
        optim.set_mode(self.model, self.settings, self._is_single or self.settings.frozen_batch_norm)
        torch.manual_seed(seed)
        self._stepper.zero_grad()
        means: dict[str, float] = {}
        whole = self.team.total(self.counts(batch))
        for part in _parts(batch, at_once):
            with self.team.at_once():
                outputs, losses = self._losses(part)
                shares = _shares(self.counts(part), whole)
                total = self._total(outputs, losses, shares)
                if not isfinite(total.item()):
                    raise NotFiniteError(f"the loss became {total.item()}")
            with self.team.at_once():
                self.fabric.backward(total)
            _add(means, losses, shares)
        self.team.add_up(self.model.parameters())
        self._descend()
        return self.team.total(means)

    def _descend(self) -> None:
        norm = self.fabric.clip_gradients(
            self._net, self._stepper, max_norm=self.settings.clip_norm or inf, error_if_nonfinite=False
        )
        size = 0.0 if norm is None else norm.item()
        self._skipped = 0 if isfinite(size) else self._skipped + 1
        if self._skipped > (SKIPPED_AT_MOST if self._scaler else 0):
            times = f" in {self._skipped} steps in a row" if self._scaler else ""
            raise NotFiniteError(f"the loss is finite, but its gradient became {size}{times}")
        self._stepper.step()

    def _judge(self, batch: Batch) -> tuple[dict[str, float], dict[str, Tensor]]:
        means: dict[str, float] = {}
        scores: list[dict[str, Tensor]] = []
        whole = self.counts(batch)
        with torch.no_grad():
            for part in _parts(batch, self.micro):
                outputs, losses = self._losses(part)
                _add(means, losses, _shares(self.counts(part), whole))
                scores.append(self._score(outputs, self.fabric.to_device(part), self.classes))
        return means, {name: torch.cat([s[name].cpu() for s in scores]) for name in scores[0]}

    def _losses(self, part: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        part = self.fabric.to_device(part)
        images = part["image"].contiguous(memory_format=torch.channels_last)
        outputs: dict[str, Tensor] = self._net(images, part) if self._is_guided else self._net(images)
        self.watcher.look(outputs)
        return outputs, self._loss(outputs, part)

    def _check_weights(self, names: Iterable[str]) -> None:
        weights = self.settings.loss_weights
        if unknown := sorted(weights.keys() - set(names)):
            raise ValueError(f"loss_weights names {', '.join(unknown)}; this family has {', '.join(names)}")
        if not any(weights.get(name, 1.0) for name in names):
            raise ValueError(f"loss_weights leaves out every loss ({', '.join(names)}); keep at least one")

    def _total(self, outputs: dict[str, Tensor], losses: dict[str, Tensor], shares: Mapping[str, float]) -> Tensor:
        """Contribution of a part to the loss of the batch; losses without a share may be a mean over nothing."""
        weights = {name: self.settings.loss_weights.get(name, 1.0) * share for name, share in shares.items()}
        used = [weights[name] * loss for name, loss in losses.items() if weights.get(name)]
        if not used or self.team.size > 1:
            # Zero times everything: batch-wide statistics need every device to run backward through every layer.
            # Outputs that mean nothing for an image are NaN there and must not spoil the zero.
            used += [0.0 * output.float().nan_to_num(0.0, 0.0, 0.0).sum() for output in outputs.values()]
        return torch.stack(used).sum()

    def _restore(self, before: Sequence[Tensor]) -> None:
        """Undo the change of batch normalization's running statistics by a forward pass that failed."""
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
                        f"out of memory on {self.fabric.device} for a single image; choose a smaller input or "
                        "network, or close other programs"
                    ) from error
            # By now the error and the activations it held have been freed.
            self._give_way()

    def _give_way(self) -> None:
        self.micro //= 2
        said = f"out of memory on {self.fabric.device}: splitting batches into parts of {self.micro}"
        self.notes.append(Note("warning", said))
        self._note_a_single_picture()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @property
    def _is_single(self) -> bool:
        return self.micro == 1 and self.team.size == 1

    def _note_a_single_picture(self) -> None:
        """Freeze batch normalization: statistics of one image would be noise, or undefined for single-pixel maps."""
        if self._is_single and any(optim.batch_norms(self.model)):
            self.notes.append(Note("info", "one image at a time: batch normalization keeps its statistics"))


def part_sizes(count: int, size: int) -> list[int]:
    """Nearly equal parts of ``count`` images, as few as ``size`` allows; none of one image unless ``size`` is 1.

    Batch normalization needs more than one image, so an odd count split into pairs ends with three.
    """
    parts = -(-count // size)
    if size > 1:
        parts = min(parts, max(1, count // 2))
    fewer, larger = divmod(count, parts)
    return [fewer + 1] * larger + [fewer] * (parts - larger)


def _parts(batch: Batch, size: int) -> Iterator[Batch]:
    start = 0
    for count in part_sizes(len(batch["image"]), size):
        yield {name: values[start : start + count] for name, values in batch.items()}
        start += count


def _shares(part: Mapping[str, float], whole: Mapping[str, float]) -> dict[str, float]:
    """Weight of a part's mean of each loss in that of the whole batch, without losses undefined in the part."""
    return {name: count / whole[name] for name, count in part.items() if count}


def _add(means: dict[str, float], losses: Mapping[str, Tensor], shares: Mapping[str, float]) -> None:
    for name, loss in losses.items():
        if name in shares:
            means[name] = means.get(name, 0.0) + loss.item() * shares[name]


def training_precision(precision: Precision, device: torch.device) -> Literal["bf16-mixed", "16-mixed"] | None:
    """Fabric's name for a mixed precision; None for float32.

    Raises
    ------
    ValueError
        If the device cannot scale float16 gradients.
    """
    check_precision(precision, device)
    if precision == "float16" and device.type != "cuda":
        raise ValueError(
            f"precision 'float16' cannot be used for training on {device.type}; use 'bfloat16' or 'float32'"
        )
    if use_bfloat16(precision, device):
        return "bf16-mixed"
    return "16-mixed" if precision == "float16" or (precision == "auto" and device.type == "cuda") else None


def _fabric(device: torch.device, mixed: MixedPrecision | None, team: Team) -> Fabric:
    # Fabric would announce on stderr what the recipe already states.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    own: Any = [team.rank] if team.size > 1 and device.type == "cuda" else 1
    return Fabric(accelerator=device.type, devices=own, plugins=mixed)


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """Seed a device's dropout for one step, independent of earlier steps, so that no random state has to be saved."""
    return int(np.random.SeedSequence((seed, step, rank)).generate_state(1)[0])


class Watcher:
    """Monitors a number named by the family during training; without one it reports nothing.

    Parameters
    ----------
    watch
        Which number to monitor, and below which spread to warn.
    """

    def __init__(self, watch: Watch | None) -> None:
        self._watch = watch
        self._seen: list[Tensor] = []

    def look(self, outputs: Mapping[str, Tensor]) -> None:
        """Record the outputs for a batch of images."""
        number = None if self._watch is None else self._watch.number(dict(outputs))
        if number is not None:
            self._seen.append(number.detach().float().cpu())

    def forget(self) -> None:
        """Discard the values recorded so far."""
        self._seen.clear()

    def warning(self) -> Note | None:
        """A warning if the number was the same for all images since the last call; None if all is well."""
        numbers = torch.cat(self._seen) if self._seen else torch.zeros(0)
        self.forget()
        if self._watch is None or len(numbers) < 2 or numbers.std() >= self._watch.least_spread:
            return None
        return Note("warning", self._watch.warning)
