"""What a training run reports, and how it crosses to another process: one JSON object per line.

Non-finite numbers are sent as ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``, so that every line is valid JSON.
"""

import json
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from napari_embryo import problems
from napari_embryo.notes import Note

Command = Literal["pause", "resume", "stop"]
COMMANDS: tuple[Command, ...] = ("pause", "resume", "stop")
"""What the training process reads from its standard input, one per line."""


class _Line(BaseModel):
    """Frozen; fields that only a newer version knows are ignored."""

    model_config = ConfigDict(frozen=True)


class Report(_Line):
    """What was found before training: ``text`` to read, ``rows`` for a table."""

    event: Literal["report"] = "report"
    text: str
    rows: tuple[dict[str, Any], ...] = ()


class Step(_Line):
    """One training step.

    Parameters
    ----------
    done, total
        Steps done of those of the whole run.
    epoch
        The epoch that it is part of, counted from 1.
    losses
        Mean losses by name over one batch.
    learning_rate
        Of the decoder.
    seconds
        How long the step took.
    """

    event: Literal["step"] = "step"
    done: int
    total: int
    epoch: int
    losses: dict[str, float]
    learning_rate: float
    seconds: float


class Epoch(_Line):
    """One pass over the training pictures and one over the validation pictures.

    Parameters
    ----------
    done, total
        Steps done of those of the whole run.
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

    event: Literal["epoch"] = "epoch"
    done: int
    total: int
    epoch: int
    train: dict[str, float]
    validation: dict[str, float]
    scores: dict[str, float]
    worst: tuple[tuple[str, float], ...] = ()
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


class Noted(_Line):
    """A message for the user."""

    event: Literal["note"] = "note"
    note: Note


class Paused(_Line):
    """The run is waiting for ``resume`` or ``stop``."""

    event: Literal["paused"] = "paused"


class Resumed(_Line):
    """The run continues."""

    event: Literal["resumed"] = "resumed"


class Finished(_Line):
    """How a run ended, unless by an error.

    Parameters
    ----------
    epochs
        Finished epochs.
    best_epoch
        The best of them, counted from 1; 0 if no epoch was finished.
    best, last
        Checkpoints; None if there is no such file.
    reason
        ``finished``: all epochs are done; ``early``: no epoch was better for long; ``stopped``: by the user.
    notes
        All notes of the run, also those reported before.
    added
        The copy of the best checkpoint in the model library.
    """

    event: Literal["finished"] = "finished"
    epochs: int
    best_epoch: int
    best: Path | None = None
    last: Path | None = None
    reason: Literal["finished", "early", "stopped"]
    notes: tuple[Note, ...] = ()
    added: Path | None = None


class Error(_Line):
    """The error that ended a run."""

    event: Literal["error"] = "error"
    message: str


_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
Event = Report | Step | Epoch | Noted | Paused | Resumed | Finished | Error
_EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])


def encode(event: Event) -> str:
    """One line of JSON without its line end, in plain ASCII, so that no system's own encoding can spoil it."""
    return json.dumps(_as_json(event.model_dump()), allow_nan=False)


def _as_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return _NOT_FINITE.get(str(value), str(value)) if isinstance(value, float) and not isfinite(value) else value


def decode(line: str) -> Event:
    """The event in a line.

    Raises
    ------
    ValueError
        If the line is not one of ours; the message shows it.
    """
    try:
        return _EVENT.validate_python(json.loads(line))
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise _not_ours(line, f"{where}: {problems.said(problem)}" if where else problems.said(problem)) from error
    except (ValueError, RecursionError) as error:
        raise _not_ours(line, str(error)) from error


def _not_ours(line: str, reason: str) -> ValueError:
    return ValueError(
        f"the training process wrote {line[:200]!r}; a line of JSON with a known 'event' was expected ({reason})"
    )
