"""A training run told line by line: one JSON object a line, between the process that trains and whoever watches.

Numbers that are not finite travel as ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``, so that every line is JSON.
"""

import json
from math import isfinite
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from napari_embryo import problems

Command = Literal["pause", "resume", "stop"]
COMMANDS: tuple[Command, ...] = ("pause", "resume", "stop")
"""What the process that trains takes on its standard input, one a line."""


class _Line(BaseModel):
    """Frozen; what a newer program says beyond it is passed over."""

    model_config = ConfigDict(frozen=True)


class Report(_Line):
    """What was found before training: ``text`` to read, ``rows`` to list."""

    event: Literal["report"] = "report"
    text: str
    rows: tuple[dict[str, Any], ...] = ()


class Step(_Line):
    """One training step; ``done`` of ``total`` steps of the whole run."""

    event: Literal["step"] = "step"
    done: int
    total: int
    epoch: int
    losses: dict[str, float]
    learning_rate: float
    seconds: float


class Epoch(_Line):
    """One epoch: losses and scores by name; ``worst`` names the worst validation pictures and their mean scores."""

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


class Note(_Line):
    """Something a user should know."""

    event: Literal["note"] = "note"
    message: str


class Paused(_Line):
    """The run waits for ``resume`` or ``stop``."""

    event: Literal["paused"] = "paused"


class Resumed(_Line):
    """The run goes on."""

    event: Literal["resumed"] = "resumed"


class Finished(_Line):
    """The end of a good run. Paths; empty where there is no such file. ``added`` is the copy in the model library."""

    event: Literal["finished"] = "finished"
    epochs: int
    best_epoch: int
    best: str = ""
    last: str = ""
    reason: str
    notes: tuple[str, ...] = ()
    added: str = ""


class Error(_Line):
    """The end of a bad run."""

    event: Literal["error"] = "error"
    message: str


_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
Event = Report | Step | Epoch | Note | Paused | Resumed | Finished | Error
_EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])


def encode(event: Event) -> str:
    """One line of JSON in plain ASCII, without its end, so that no system's own encoding can spoil it."""
    return json.dumps(_as_json(event.model_dump()), allow_nan=False)


def _as_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    return _NOT_FINITE.get(str(value), str(value)) if isinstance(value, float) and not isfinite(value) else value


def decode(line: str) -> Event:
    """The event that a line tells.

    Raises
    ------
    ValueError
        When the line is not one of ours; shows it.
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
