"""Numbers that count frames or planes, and numbers in texts."""

import re
from typing import Any

import numpy as np


def regular_step(numbers: tuple[int, ...]) -> int:
    """The greatest common step of all distances; 1 for a single number."""
    return int(np.gcd.reduce(np.diff(numbers))) if len(numbers) > 1 else 1


MOST_MISSING = 100_000
"""Numbers with more gaps than this do not count anything."""


def missing_numbers(numbers: tuple[int, ...]) -> tuple[int, ...]:
    """Numbers missing from a regular count between its first and last."""
    if len(numbers) < 2 or (numbers[-1] - numbers[0]) // regular_step(numbers) > MOST_MISSING:
        return ()
    present = set(numbers)
    return tuple(n for n in range(numbers[0], numbers[-1] + 1, regular_step(numbers)) if n not in present)


def ranges_text(numbers: tuple[int, ...], most: int = 6) -> str:
    """Numbers as text: 87, 90-95, ..."""
    if not numbers:
        return "none"
    cuts = np.flatnonzero(np.diff(numbers) != 1) + 1
    parts = [f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in np.split(np.array(numbers), cuts)]
    return ", ".join(parts[:most]) + (", ..." if len(parts) > most else "")


def even_step(values: Any) -> float | None:
    """The distance between neighbors if it is constant and not 0, otherwise None."""
    if values is None or len(values) < 2:
        return None
    steps = np.diff(values)
    step = float(steps[0])
    return step if step != 0 and np.allclose(steps, step, rtol=1e-3, atol=0) else None


def number_of(text: Any) -> float | None:
    """Parse a number with a decimal point; None for any other text."""
    is_number = text is not None and re.fullmatch(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*", str(text))
    return float(text) if is_number else None


def decimal(text: str) -> float:
    """Parse a number with a decimal point or, as in much of Europe, a comma."""
    return float(text.replace(",", "."))
