"""Confidence intervals of means over images, accounting for several images of one embryo."""

from math import nan

import numpy as np
import numpy.typing as npt


def bootstrap_interval(
    values: npt.NDArray[np.float64], groups: npt.NDArray[np.str_], seed: int = 0, draws: int = 2000
) -> tuple[float, float]:
    """95 % interval of the mean, resampling whole embryos with replacement; NaN with fewer than two embryos."""
    rng = np.random.default_rng(seed)
    members = [values[groups == g] for g in np.unique(groups)]
    if len(members) < 2:
        return nan, nan
    sums = np.array([m.sum() for m in members])
    counts = np.array([len(m) for m in members])
    drawn = rng.integers(0, len(members), (draws, len(members)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def drawn_embryos(groups: npt.NDArray[np.str_], seed: int = 0, draws: int = 500) -> list[npt.NDArray[np.intp]]:
    """Indices of the members of embryos drawn with replacement, ``draws`` times."""
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(groups == g) for g in np.unique(groups)]
    chosen = rng.integers(0, len(members), (draws, len(members)))
    return [np.concatenate([members[i] for i in row]) for row in chosen]
