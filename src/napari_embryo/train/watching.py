"""Whether a network still tells pictures apart."""

from collections.abc import Mapping

import torch
from torch import Tensor

from napari_embryo.models import Watch


class Watcher:
    """Collects the number that a family wants to be watched; without one it says nothing.

    Parameters
    ----------
    watch
        Which number, and how little of a spread is too little.
    """

    def __init__(self, watch: Watch | None) -> None:
        self._watch = watch
        self._seen: list[Tensor] = []

    def look(self, outputs: Mapping[str, Tensor]) -> None:
        """At what a network makes of some pictures."""
        number = None if self._watch is None else self._watch.number(dict(outputs))
        if number is not None:
            self._seen.append(number.detach().float().cpu())

    def forget(self) -> None:
        """What was seen up to now."""
        self._seen.clear()

    def warning(self) -> str | None:
        """What to do about a number that was the same for all pictures since the last call; None where all is well."""
        numbers = torch.cat(self._seen) if self._seen else torch.zeros(0)
        self.forget()
        if self._watch is None or len(numbers) < 2 or numbers.std() >= self._watch.least_spread:
            return None
        return self._watch.warning
