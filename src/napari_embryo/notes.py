"""What a user is told beside the results: notes, and what could not be done."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["info", "warning"]


@dataclass(frozen=True)
class Note:
    """Something a user should know; a warning is something to act on or to check."""

    level: Level
    text: str


@dataclass(frozen=True)
class Failure:
    """A picture that could not be done, and why; the others are done.

    Parameters
    ----------
    image
        Name of the image.
    index
        Place of the picture along the image's leading axes.
    reason
        Why, and what to do.
    """

    image: str
    index: tuple[int, ...]
    reason: str
