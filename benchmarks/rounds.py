"""Fair timings for the benchmarks: everything runs once per round, so that slow periods affect all alike."""

import time
from collections.abc import Callable
from statistics import median

from rich.table import Table
from torch import nn


def interleaved(
    work: dict[str, Callable[[], None]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each function, with all of them run once per round; every second round runs in reverse order."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for run in work.values():
        run()
    for i in range(repeats):
        for name in list(work)[:: 1 if i % 2 == 0 else -1]:
            start = clock()
            work[name]()
            seconds[name].append(clock() - start)
    return seconds


def ratio(numerator: list[float], denominator: list[float]) -> str:
    """Ratio of times within the same round."""
    each = [a / b for a, b in zip(numerator, denominator, strict=True)]
    return f"{median(each):.2f} ({min(each):.2f}-{max(each):.2f})"


def table(networks: dict[str, nn.Module], seconds: dict[str, list[float]], other: str, title: str) -> Table:
    """One row per network, compared with the ``other``."""
    shown = Table(title=title)
    for column in ("what", "parameters", "ms", "range", "x other"):
        shown.add_column(column, justify="left" if column == "what" else "right")
    for name, each in seconds.items():
        ms = [1000 * s for s in each]
        size = f"{sum(p.numel() for p in networks[name].parameters()):,}"
        share = "" if name == other else ratio(each, seconds[other])
        shown.add_row(name, size, f"{median(ms):.0f}", f"{min(ms):.0f}-{max(ms):.0f}", share)
    return shown
