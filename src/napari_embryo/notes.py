"""What a user is told beside the results: notes, and what could not be done."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["info", "warning"]

RESEARCH_ONLY = "Research use only"
"""What stands beside every grade and ratio."""
RESEARCH_USE = f"{RESEARCH_ONLY}: not a medical device, not for diagnosis, not for choosing embryos."
"""What stands below every widget and every run of the command line."""


def counted(number: int, thing: str) -> str:
    """``1 epoch``, ``2 epochs``; the number is written as it is, the thing gets its plural."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


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
