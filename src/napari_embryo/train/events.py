"""Progress events of a training run."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Step:
    """One step: mean losses by name over the batch, learning rate of the decoder, and duration in seconds."""

    epoch: int
    losses: dict[str, float]
    learning_rate: float
    seconds: float


@dataclass(frozen=True)
class Epoch:
    """One pass over the training images and one over the validation images.

    Parameters
    ----------
    epoch
        Counted from 1.
    train, validation
        Mean losses by name.
    scores
        Means over the validation images by name, such as ``IoU ICM``; higher is better.
    worst
        ``source/name`` and mean score of up to five validation images, the worst first.
    learning_rate
        Learning rate of the decoder in the last step.
    seconds
        Duration of training and validation together.
    best
        Whether no earlier epoch had a higher mean score.
    """

    epoch: int
    train: dict[str, float]
    validation: dict[str, float]
    scores: dict[str, float]
    worst: tuple[tuple[str, float], ...]
    learning_rate: float
    seconds: float
    best: bool

    @property
    def score(self) -> float | None:
        """Mean of the scores; None if nothing could be scored."""
        return mean_score(self.scores)


def mean_score(scores: Mapping[str, float]) -> float | None:
    """The one number by which epochs are compared; None if nothing could be scored."""
    return sum(scores.values()) / len(scores) if scores else None


@dataclass(frozen=True)
class Outcome:
    """Result of a training run.

    ``best`` and ``last`` are checkpoints; ``best_epoch`` is 0 if no epoch was finished.
    """

    epochs: int
    best_epoch: int
    best: Path
    last: Path
    reason: Literal["finished", "early", "stopped"]
    notes: tuple[str, ...] = ()
