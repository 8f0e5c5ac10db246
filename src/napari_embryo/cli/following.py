"""A training followed from outside: what it tells is passed on, and it can be stopped between two steps."""

from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING

from napari_embryo import library
from napari_embryo.image import Progress

if TYPE_CHECKING:
    from napari_embryo.train import Outcome

FINISHED_ALREADY = "this training was finished already; nothing is left to learn"
FAILURES = (OSError, ValueError, ArithmeticError, MemoryError)
"""What a training ends with that a user can mend: files, settings, a loss that is no number, memory."""


def follow(
    steps: "Generator[Progress, None, Outcome]",
    out: Path,
    is_stopped: Callable[[], bool],
    tell: Callable[[Progress], None],
) -> "Outcome":
    """Run to the end, or until ``is_stopped``, which is asked before every step and may wait."""
    has_learnt = False
    try:
        while not is_stopped():
            progress = next(steps)
            has_learnt = has_learnt or not isinstance(progress.item, str)
            tell(progress)
    except StopIteration as end:
        if not has_learnt:
            tell(Progress(0, 0, FINISHED_ALREADY, FINISHED_ALREADY))
        outcome: Outcome = end.value
        return outcome
    finally:
        steps.close()
    from napari_embryo import train

    return train.stopped(out)


def add_best(outcome: "Outcome", name: str) -> Path | None:
    """Put the best weights among the user's models, where they are not there since an earlier part of the training.

    Returns
    -------
    Path or None
        The model; None where no epoch was finished, so that none was judged.

    Raises
    ------
    OSError
        When they cannot be put there; says where they are.
    """
    if not outcome.best_epoch:
        return None
    try:
        return library.copy_of(outcome.best) or library.add_to_library(outcome.best, name)
    except (OSError, ValueError) as error:
        raise OSError(
            f"the best weights could not be put among your models ({error}); they are in {outcome.best.resolve()}"
        ) from error
