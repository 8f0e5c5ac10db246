"""Metrics on annotated pictures."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from napari_embryo import measure
from napari_embryo.data import Sample

Masks = npt.NDArray[np.bool_]


def score(
    samples: Iterable[Sample], predict: Callable[[npt.NDArray[np.generic]], Masks], classes: Sequence[str]
) -> pd.DataFrame:
    """One row per image and known class: IoU and Dice at the image's own size, and the pixels behind the pooled IoU.

    Parameters
    ----------
    samples
        Pictures not trained on.
    predict
        (H, W) grey -> (C, H, W) masks.
    classes
        Names of the masks.
    """
    rows = []
    for sample in samples:
        masks = predict(sample.image)
        for i, name in enumerate(classes):
            if sample.known[i]:
                rows.append(_row(sample, name, masks[i], sample.masks[i]))
    return pd.DataFrame(rows)


def _row(sample: Sample, name: str, found: Masks, truth: Masks) -> dict[str, object]:
    return {
        "image": sample.name,
        "embryo": sample.embryo,
        "source": sample.source,
        "class": name,
        "iou": measure.iou(found, truth),
        "dice": measure.dice(found, truth),
        "intersection": int((found & truth).sum()),
        "union": int((found | truth).sum()),
    }


def bootstrap_interval(
    values: npt.NDArray[np.float64], groups: npt.NDArray[np.str_], seed: int = 0, draws: int = 2000
) -> tuple[float, float]:
    """95 % interval of the mean, drawing whole embryos with replacement."""
    rng = np.random.default_rng(seed)
    members = [values[groups == g] for g in np.unique(groups)]
    sums = np.array([m.sum() for m in members])
    counts = np.array([len(m) for m in members])
    drawn = rng.integers(0, len(members), (draws, len(members)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def summary(scores: pd.DataFrame, by: Sequence[str] = ("source", "class")) -> pd.DataFrame:
    """Macro IoU and Dice with spread and interval, and the pooled (micro) IoU, per source and class."""
    rows = []
    for key, part in scores.groupby(list(by), sort=True):
        low, high = bootstrap_interval(part["iou"].to_numpy(float), part["embryo"].to_numpy(str))
        rows.append(
            {
                **dict(zip(by, key if isinstance(key, tuple) else (key,), strict=True)),
                "images": part["image"].nunique(),
                "embryos": part["embryo"].nunique(),
                "iou": part["iou"].mean(),
                "iou_std": part["iou"].std(ddof=0),
                "iou_low": low,
                "iou_high": high,
                "iou_pooled": part["intersection"].sum() / max(1, part["union"].sum()),
                "dice": part["dice"].mean(),
            }
        )
    return pd.DataFrame(rows)
