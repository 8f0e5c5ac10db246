"""How near fragmentation ratios come."""

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
    "told_by",
    "grade",
    "regressed",
    "grade_regressed",
    "from_mask",
    "grade_from_mask",
)
"""Of :func:`score_ratios`."""
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
"""Of :func:`ratio_summary`."""
WAYS = {"regressed": "regressed", "mask": "from_mask", "median": "median"}
"""How a ratio was come by -> its column: the regression head's, that of the found mask, and always the same one."""


def score_ratios(samples: Iterable[Sample], predict: Callable[[npt.NDArray[np.generic]], Parts]) -> pd.DataFrame:
    """One row per picture whose fragmentation ratio or grade is known.

    ``ratio`` is the true one, ``told_by`` where it is from: ``mask`` (drawn fragments over the drawn embryo), ``ratio``
    (told with the picture) or ``grade`` (a grade alone: the ratio is empty). ``regressed`` is empty where the network
    does not regress, ``from_mask`` where it draws no masks; it is 0 where it found no embryo.

    Parameters
    ----------
    samples
        Pictures not trained on, with the classes fragment and embryo.
    predict
        (H, W) gray -> what was found.
    """
    rows = []
    for sample in samples:
        truth = sample.read()
        known = _known_ratio(truth)
        if known["told_by"]:
            about = {"image": sample.name, "embryo": sample.embryo, "source": sample.source}
            rows.append({**about, **known, **_found_ratios(predict(truth.image))})
    return pd.DataFrame(rows, columns=list(RATIO_COLUMNS))


def _known_ratio(truth: Truth) -> dict[str, object]:
    ratio = fragmentation_ratio(truth, FRAGMENT_CLASSES)
    if ratio is None:
        return {"ratio": nan, "told_by": "grade" if truth.grade else "", "grade": truth.grade}
    is_drawn = truth.known.all() and truth.masks[FRAGMENT_CLASSES.index("embryo")].any()
    return {"ratio": ratio, "told_by": "mask" if is_drawn else "ratio", "grade": measure.grade(ratio)}


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
    """How near the ratios come, one row for each of :data:`WAYS` that there is.

    ``mae`` is the mean absolute error with a 95 % bootstrap interval over embryos (NaN of one alone), ``bias`` the mean
    difference (Bland and Altman), of ``pictures`` with a true ratio; ``grades_right`` and ``kappa`` (Cohen's, quadratic
    weights) are of ``graded`` pictures.

    Parameters
    ----------
    ratios
        Rows of :func:`score_ratios`.
    usual
        What ``median`` always answers: the median of the training pictures. Where nothing is said, that of the
        pictures scored, which flatters it.
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
    """Cohen's kappa of grades with quadratic weights; NaN where all are of one grade, which tells nothing."""
    names = list(GRADES)
    true, told = (np.array([names.index(grade) for grade in grades], float) for grades in (truth, found))
    by_chance = float(np.mean((true[:, None] - told[None, :]) ** 2)) if len(true) else 0.0
    return 1 - float(np.mean((true - told) ** 2)) / by_chance if by_chance else nan
