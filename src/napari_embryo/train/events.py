"""What training tells of itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Step:
    """Mean losses by name over one batch, the decoder's learning rate, and the seconds the step took."""

    epoch: int
    losses: dict[str, float]
    learning_rate: float
    seconds: float


@dataclass(frozen=True)
class Epoch:
    """One pass over the training pictures and one over the validation pictures.

    Parameters
    ----------
    epoch
        Counted from 1.
    train, validation
        Mean losses by name.
    scores
        Means over the validation pictures by name, such as ``IoU ICM``; higher is better.
    worst
        ``source/name`` and mean score of up to five validation pictures, the worst first.
    learning_rate
        Of the decoder, in the last step.
    seconds
        Training and validation together.
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
        """Mean of the scores; None where nothing could be scored."""
        return mean_score(self.scores)


def mean_score(scores: Mapping[str, float]) -> float | None:
    """The one number by which epochs are compared; None where nothing could be scored."""
    return sum(scores.values()) / len(scores) if scores else None


@dataclass(frozen=True)
class Outcome:
    """How training ended.

    ``best`` and ``last`` are checkpoints; ``best_epoch`` is 0 where no epoch was finished.
    """

    epochs: int
    best_epoch: int
    best: Path
    last: Path
    reason: Literal["finished", "early", "stopped"]
    notes: tuple[str, ...] = ()
