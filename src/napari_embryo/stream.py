"""Events of a training run as JSON lines, between the training process and its observer.

Non-finite numbers are sent as ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``, so that every line is valid JSON.
"""

import json
from collections.abc import Mapping
from math import isfinite
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

Command = Literal["pause", "resume", "stop"]
COMMANDS: tuple[Command, ...] = ("pause", "resume", "stop")
"""Commands that the training process accepts on its standard input, one per line."""


class _Line(BaseModel):
    """Frozen; unknown fields of a newer program are ignored."""

    model_config = ConfigDict(frozen=True)


class Report(_Line):
    """Report on the data before training: ``text`` to read, ``rows`` to list."""

    event: Literal["report"] = "report"
    text: str
    rows: tuple[dict[str, Any], ...] = ()


class Step(_Line):
    """One training step: ``done`` of ``total`` steps of the whole run."""

    event: Literal["step"] = "step"
    done: int
    total: int
    epoch: int
    losses: dict[str, float]
    learning_rate: float
    seconds: float


class Epoch(_Line):
    """One epoch: losses and scores by name; ``worst`` lists the worst validation images and their mean scores."""

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
    """A message for the user."""

    event: Literal["note"] = "note"
    message: str


class Paused(_Line):
    """The run is paused until ``resume`` or ``stop``."""

    event: Literal["paused"] = "paused"


class Resumed(_Line):
    """The run continues."""

    event: Literal["resumed"] = "resumed"


class Finished(_Line):
    """End of a successful run. Paths are empty if there is no such file; ``added`` is the copy in the library."""

    event: Literal["finished"] = "finished"
    epochs: int
    best_epoch: int
    best: str = ""
    last: str = ""
    reason: str
    notes: tuple[str, ...] = ()
    added: str = ""


class Error(_Line):
    """End of a failed run."""

    event: Literal["error"] = "error"
    message: str


_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
Event = Report | Step | Epoch | Note | Paused | Resumed | Finished | Error
_EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])


def encode(event: Event) -> str:
    """One line of JSON without its newline, in plain ASCII so that no system encoding can corrupt it."""
    return json.dumps(_as_json(event.model_dump()), allow_nan=False)


def _as_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    return _NOT_FINITE.get(str(value), str(value)) if isinstance(value, float) and not isfinite(value) else value


def decode(line: str) -> Event:
    """Parse a line into its event.

    Raises
    ------
    ValueError
        If the line is not a known event; the message shows it.
    """
    try:
        return _EVENT.validate_python(json.loads(line))
    except ValidationError as error:
        raise _not_ours(line, error.errors()[0]) from error
    except (ValueError, RecursionError) as error:
        raise _not_ours(line, {"loc": (), "msg": str(error)}) from error


def _not_ours(line: str, problem: Mapping[str, Any]) -> ValueError:
    where = ".".join(map(str, problem["loc"]))
    return ValueError(
        f"the training process sent {line[:200]!r}, but a line of JSON with a known 'event' was expected "
        f"({where + ': ' if where else ''}{problem['msg']})"
    )
