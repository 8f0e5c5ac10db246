"""Messages to the user besides the results: notes and failures."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["info", "warning"]


@dataclass(frozen=True)
class Note:
    """A message for the user; a warning needs action or a check."""

    level: Level
    text: str


@dataclass(frozen=True)
class Failure:
    """A plane that could not be processed, and why; the others are processed.

    Parameters
    ----------
    image
        Name of the image.
    index
        Position of the plane along the leading axes of the image.
    reason
        The reason, and what to do.
    """

    image: str
    index: tuple[int, ...]
    reason: str
