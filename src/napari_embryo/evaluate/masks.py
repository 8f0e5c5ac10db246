"""Agreement of masks of an embryo's parts."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from napari_embryo import measure
from napari_embryo.data import Sample
from napari_embryo.evaluate.bootstrap import bootstrap_interval

Masks = npt.NDArray[np.bool_]
COLUMNS = ("image", "embryo", "source", "class", "iou", "dice", "intersection", "union", "found", "truth")
"""Columns of :func:`score`; the last four are pixel counts."""


def score(
    samples: Iterable[Sample], predict: Callable[[npt.NDArray[np.generic]], Masks], classes: Sequence[str]
) -> pd.DataFrame:
    """One row per image and annotated class: IoU and Dice at the image's own size, and pixel counts for pooling.

    Parameters
    ----------
    samples
        Samples not used for training.
    predict
        (H, W) gray -> (C, H, W) masks.
    classes
        Names of the masks.
    """
    rows = []
    for sample in samples:
        truth = sample.read()
        masks = predict(truth.image)
        rows += [_row(sample, name, masks[i], truth.masks[i]) for i, name in enumerate(classes) if truth.known[i]]
    return pd.DataFrame(rows, columns=list(COLUMNS))


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
        "found": int(found.sum()),
        "truth": int(truth.sum()),
    }


def summary(scores: pd.DataFrame, by: Sequence[str] = ("source", "class")) -> pd.DataFrame:
    """Macro (mean over images) and micro (pooled pixels) IoU and Dice, with spread and interval, per source and class.

    Micro is 1 if neither prediction nor annotation has a pixel, like the IoU of an image. With a single embryo the
    interval is NaN.
    """
    rows = []
    for key, part in scores.groupby(list(by), sort=True):
        low, high = bootstrap_interval(part["iou"].to_numpy(float), part["embryo"].to_numpy(str))
        union, both = part["union"].sum(), part["intersection"].sum()
        rows.append(
            {
                **dict(zip(by, key if isinstance(key, tuple) else (key,), strict=True)),
                "images": len(part.drop_duplicates(["source", "image"])),
                "embryos": part["embryo"].nunique(),
                "iou": part["iou"].mean(),
                "iou_std": part["iou"].std(ddof=0),
                "iou_low": low,
                "iou_high": high,
                "iou_pooled": both / union if union else 1.0,
                "dice": part["dice"].mean(),
                "dice_pooled": 2 * both / (union + both) if union else 1.0,
            }
        )
    return pd.DataFrame(rows)
