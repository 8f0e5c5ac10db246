"""Errors of fragmentation ratios."""

from collections.abc import Callable, Iterable, Sequence
from math import nan

import numpy as np
import numpy.typing as npt
import pandas as pd

from napari_embryo import measure
from napari_embryo.data import Sample, Truth
from napari_embryo.data.sample import fragmentation_ratio
from napari_embryo.evaluate.bootstrap import bootstrap_interval
from napari_embryo.families import FRAGMENT_CLASSES
from napari_embryo.image import Parts
from napari_embryo.settings import GRADES

RATIO_COLUMNS = (
    "image",
    "embryo",
    "source",
    "ratio",
    "ratio_source",
    "grade",
    "regressed",
    "grade_regressed",
    "from_mask",
    "grade_from_mask",
)
"""Columns of :func:`score_ratios`."""
SUMMARY_COLUMNS = (
    "way",
    "pictures",
    "embryos",
    "mae",
    "mae_low",
    "mae_high",
    "bias",
    "graded",
    "grades_right",
    "kappa",
)
"""Columns of :func:`ratio_summary`."""
WAYS = {"regressed": "regressed", "mask": "from_mask", "median": "median"}
"""How a ratio is obtained -> its column: by the regression head, from the mask, or a constant."""


def score_ratios(samples: Iterable[Sample], predict: Callable[[npt.NDArray[np.generic]], Parts]) -> pd.DataFrame:
    """One row per image whose fragmentation ratio or grade is known.

    ``ratio`` is the true one and ``ratio_source`` its origin: ``mask`` (annotated fragments over the annotated embryo),
    ``ratio`` (a number given with the image) or ``grade`` (only a grade is known; the ratio is empty). ``regressed`` is
    empty if the network has no regression head, ``from_mask`` if it draws no masks; it is 0 if no embryo was found.

    Parameters
    ----------
    samples
        Samples not used for training, with the classes fragment and embryo.
    predict
        Function from an (H, W) gray image to what was found in it.
    """
    rows = []
    for sample in samples:
        truth = sample.read()
        known = _known_ratio(truth)
        if known["ratio_source"]:
            about = {"image": sample.name, "embryo": sample.embryo, "source": sample.source}
            rows.append({**about, **known, **_found_ratios(predict(truth.image))})
    return pd.DataFrame(rows, columns=list(RATIO_COLUMNS))


def _known_ratio(truth: Truth) -> dict[str, object]:
    ratio = fragmentation_ratio(truth, FRAGMENT_CLASSES)
    if ratio is None:
        return {"ratio": nan, "ratio_source": "grade" if truth.grade else "", "grade": truth.grade}
    is_drawn = truth.known.all() and truth.masks[FRAGMENT_CLASSES.index("embryo")].any()
    return {"ratio": ratio, "ratio_source": "mask" if is_drawn else "ratio", "grade": measure.grade(ratio)}


def _found_ratios(found: Parts) -> dict[str, object]:
    regressed, from_mask = found.numbers.get("ratio_regressed", nan), nan
    if set(FRAGMENT_CLASSES) <= set(found.classes):
        fragments, embryo = (found.masks[found.classes.index(name)] for name in FRAGMENT_CLASSES)
        share = measure.fragmentation(fragments, embryo)["ratio_from_mask"]
        from_mask = 0.0 if share is None else float(share)
    return {
        "regressed": regressed,
        "grade_regressed": _grade(regressed),
        "from_mask": from_mask,
        "grade_from_mask": _grade(from_mask),
    }


def _grade(ratio: float) -> str | None:
    return None if np.isnan(ratio) else measure.grade(ratio)


def ratio_summary(ratios: pd.DataFrame, usual: float | None = None) -> pd.DataFrame:
    """Errors of the ratios, one row for each available way of :data:`WAYS`.

    ``mae`` is the mean absolute error with a 95 % bootstrap interval over embryos (NaN for a single one) and ``bias``
    the mean difference (Bland and Altman), both over the ``pictures`` with a true ratio; ``grades_right`` and ``kappa``
    (Cohen's, quadratic weights) are over the ``graded`` images.

    Parameters
    ----------
    ratios
        Rows of :func:`score_ratios`.
    usual
        The constant answer of ``median``: the median of the training images. By default that of the scored images,
        which flatters it.
    """
    constant = ratios["ratio"].median() if usual is None else usual
    told = ratios.assign(median=constant)
    rows = [_of_way(told, way, column) for way, column in WAYS.items() if told[column].notna().any()]
    return pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS))


def _of_way(told: pd.DataFrame, way: str, column: str) -> dict[str, object]:
    answered = told[told[column].notna()]
    measured, graded = answered[answered["ratio"].notna()], answered[answered["grade"].notna()]
    differences = (measured[column] - measured["ratio"]).to_numpy(float)
    errors, embryos = np.abs(differences), measured["embryo"].to_numpy(str)
    low, high = bootstrap_interval(errors, embryos) if len(errors) else (nan, nan)
    grades = [measure.grade(ratio) for ratio in graded[column]]
    return {
        "way": way,
        "pictures": len(measured),
        "embryos": measured["embryo"].nunique(),
        "mae": errors.mean() if len(errors) else nan,
        "mae_low": low,
        "mae_high": high,
        "bias": differences.mean() if len(errors) else nan,
        "graded": len(graded),
        "grades_right": float(np.mean(graded["grade"].to_numpy(str) == np.array(grades, str))) if grades else nan,
        "kappa": quadratic_kappa(list(graded["grade"]), grades),
    }


def quadratic_kappa(truth: Sequence[str], found: Sequence[str]) -> float:
    """Cohen's kappa of grades with quadratic weights; NaN if all grades are equal."""
    names = list(GRADES)
    true, told = (np.array([names.index(grade) for grade in grades], float) for grades in (truth, found))
    by_chance = float(np.mean((true[:, None] - told[None, :]) ** 2)) if len(true) else 0.0
    return 1 - float(np.mean((true - told) ** 2)) / by_chance if by_chance else nan
