"""Training: a generator on a page."""

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from napari_embryo.data import Sample, TrainingSet
from napari_embryo.image import Progress
from napari_embryo.models import LOSSES
from napari_embryo.settings import Preprocessing, TrainSettings


@dataclass(frozen=True)
class Step:
    """Losses by name, learning rate and seconds of one training step."""

    losses: dict[str, float]
    learning_rate: float
    seconds: float


def train(
    model: nn.Module, samples: Sequence[Sample], preprocessing: Preprocessing, settings: TrainSettings
) -> Generator[Progress, None, None]:
    """Train ``model`` in place, yielding a :class:`Step` after every step; stop iterating to stop.

    The learning rate rises over the first tenth of the steps and falls to zero along a cosine. The encoder learns at
    ``settings.encoder_rate`` of it.

    Raises
    ------
    ValueError
        When there is no sample.
    FloatingPointError
        When a loss is not finite; names the samples of the batch. The model is what it was before the step.
    """
    if not samples:
        raise ValueError("there is no sample to learn from; give at least one annotated picture")
    torch.manual_seed(settings.seed)
    optimizer = torch.optim.AdamW(_groups(model, settings), weight_decay=settings.weight_decay)
    peaks = [group["lr"] for group in optimizer.param_groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peaks, settings.steps, pct_start=_rising_share(settings))
    compute_loss = LOSSES[str(model.settings.family)]  # type: ignore[union-attr]
    model.to(memory_format=torch.channels_last).train()
    for step, (names, batch) in enumerate(_batches(samples, preprocessing, settings), start=1):
        start = time.perf_counter()
        statistics = [buffer.clone() for buffer in model.buffers()]
        losses = compute_loss(model(batch["image"]), batch)
        total = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(total):
            _restore(model, statistics)
            raise FloatingPointError(
                f"the loss became {total.item()} on the batch {', '.join(names)}; lower the learning rate"
            )
        optimizer.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
        optimizer.step()
        schedule.step()
        rate = float(schedule.get_last_lr()[-1])
        done = Step({k: v.item() for k, v in losses.items()}, rate, time.perf_counter() - start)
        yield Progress(step, settings.steps, _said(done), done)
        model.train()


def _rising_share(settings: TrainSettings) -> float:
    """Of the steps; torch divides by zero where exactly one step rises."""
    return min(0.9, max(settings.warm_up, 1.5 / settings.steps))


def _groups(model: nn.Module, settings: TrainSettings) -> list[dict[str, Any]]:
    encoder = [p for name, p in model.named_parameters() if name.startswith("encoder.")]
    rest = [p for name, p in model.named_parameters() if not name.startswith("encoder.")]
    slow = {"params": encoder, "lr": settings.learning_rate * settings.encoder_rate}
    return [*([slow] if encoder else []), {"params": rest, "lr": settings.learning_rate}]


def _batches(
    samples: Sequence[Sample], preprocessing: Preprocessing, settings: TrainSettings
) -> Iterator[tuple[list[str], dict[str, Tensor]]]:
    """``settings.steps`` batches; every epoch visits each sample once, in an order of its own, in whole batches."""
    dataset = TrainingSet(samples, preprocessing, settings.seed)
    order: list[int] = []
    for _ in range(settings.steps):
        while len(order) < settings.batch_size:
            dataset.epoch += 1
            order += np.random.default_rng((settings.seed, dataset.epoch)).permutation(len(samples)).tolist()
        chosen, order = order[: settings.batch_size], order[settings.batch_size :]
        batch: dict[str, Tensor] = default_collate([_plain(dataset[i]) for i in chosen])
        batch["image"] = batch["image"].contiguous(memory_format=torch.channels_last)
        yield [samples[i].name for i in chosen], batch


def _plain(item: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.as_subclass(Tensor) for name, tensor in item.items()}


def _restore(model: nn.Module, statistics: Sequence[Tensor]) -> None:
    """The forward pass has already moved the running statistics of batch normalisation."""
    for buffer, before in zip(model.buffers(), statistics, strict=True):
        buffer.copy_(before)


def _said(step: Step) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in step.losses.items())
