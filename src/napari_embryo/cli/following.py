"""A training followed from outside: what it tells is passed on, and it can be stopped between two steps."""

from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING

from napari_embryo import library, recipes
from napari_embryo.image import Progress

if TYPE_CHECKING:
    from napari_embryo.train import Outcome

FAILURES = (OSError, ValueError, ArithmeticError, MemoryError)
"""What a training ends with that a user can mend: files, settings, a loss that is no number, memory."""


def follow(
    steps: "Generator[Progress, None, Outcome]",
    out: Path,
    is_stopped: Callable[[], bool],
    tell: Callable[[Progress], None],
) -> "Outcome":
    """Run to the end, or until ``is_stopped``, which is asked before every step and may wait."""
    try:
        while not is_stopped():
            tell(next(steps))
    except StopIteration as end:
        outcome: Outcome = end.value
        return outcome
    finally:
        steps.close()
    return recipes.stopped(out)


def add_best(outcome: "Outcome", name: str) -> Path | None:
    """Put the best weights among the user's models; None where no epoch was finished, so that none was judged."""
    return library.add_to_library(outcome.best, name) if outcome.best_epoch else None
