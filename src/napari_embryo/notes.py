"""Messages to the user besides the results: notes and failures."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["info", "warning"]

RESEARCH_ONLY = "Research use only"
"""Notice next to every grade and ratio."""
RESEARCH_USE = f"{RESEARCH_ONLY}: not a medical device, not for diagnosis, not for selecting embryos."
"""Notice below every widget and every run of the command line."""


def counted(number: int, thing: str) -> str:
    """``1 epoch``, ``2 epochs``; the number is written as it is, the thing gets its plural."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


@dataclass(frozen=True)
class Note:
    """A message for the user; a warning needs action or a check."""

    level: Level
    text: str

    @property
    def line(self) -> str:
        """The text after ``note:`` or ``warning:``."""
        return f"{'note' if self.level == 'info' else 'warning'}: {self.text}"


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
