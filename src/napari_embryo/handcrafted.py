"""Hand-crafted baselines: texture features of the embryo and a small regressor on top of them.

The baselines of the fragmentation papers (docs/decisions.md, "Texture baselines"): gray-level co-occurrence,
multi-scale uniform local binary patterns with a multilayer perceptron, and t-SNE to see how well the grades separate.
Only pixels within the embryo count. The last two need scikit-learn (the extra ``baselines``).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_erosion
from skimage.feature import graycomatrix, graycoprops, local_binary_pattern

Gray = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

LEVELS = 32
DISTANCES = (1, 2, 4)
ANGLES = (0.0, np.pi / 4, np.pi / 2, 3 * np.pi / 4)
PROPERTIES = ("contrast", "dissimilarity", "homogeneity", "energy", "correlation", "ASM")
PATTERNS = ((8, 1), (16, 2), (24, 3))
"""Number of points and radius of the local binary patterns, for each scale."""
SMALLEST = 2 * max(radius for _, radius in PATTERNS) + 1
PERPLEXITY = 30.0
DECAY = 1.0
"""L2 penalty on the perceptron's weights; with scikit-learn's default of 1e-4 it overfits so few images."""


def glcm_names() -> tuple[str, ...]:
    """Names of the features of :func:`glcm_features`."""
    return tuple(f"{name} {what} d{d}" for name in PROPERTIES for what in ("mean", "range") for d in DISTANCES)


def glcm_features(image: Gray, embryo: Mask) -> Floats:
    """(36,): mean and range over four angles of six properties at three distances, for pairs within the embryo.

    Parameters
    ----------
    image
        (H, W) gray; integers span the range of their type, floats 0 to 1. Quantized to 32 levels of a fixed range.
    embryo
        (H, W) mask of the embryo.

    Raises
    ------
    ValueError
        If the embryo is too small to hold such pairs.
    """
    _check(image, embryo)
    # Pixels outside get a separate level, whose pairs are removed.
    levels = np.where(embryo, _quantized(image, LEVELS), LEVELS).astype(np.uint8)
    pairs = graycomatrix(levels, DISTANCES, ANGLES, levels=LEVELS + 1, symmetric=True)[:LEVELS, :LEVELS].astype(float)
    shares = pairs / np.maximum(pairs.sum((0, 1)), 1)
    each = [graycoprops(shares, name) for name in PROPERTIES]
    return np.concatenate([np.concatenate((values.mean(1), np.ptp(values, 1))) for values in each])


def lbp_features(image: Gray, embryo: Mask) -> Floats:
    """(54,): histograms of uniform local binary patterns at three scales, each normalized to sum 1.

    Only pixels whose whole neighborhood lies in the embryo count. Parameters as in :func:`glcm_features`.
    """
    _check(image, embryo)
    gray = _quantized(image, 256)
    return np.concatenate([_histogram(gray, embryo, points, radius) for points, radius in PATTERNS])


def _histogram(gray: npt.NDArray[np.uint8], embryo: Mask, points: int, radius: int) -> Floats:
    inside = binary_erosion(embryo, np.ones((2 * radius + 1,) * 2))
    patterns = local_binary_pattern(gray, points, radius, method="uniform")[inside].astype(int)
    return np.bincount(patterns, minlength=points + 2) / len(patterns)


def _quantized(image: Gray, levels: int) -> npt.NDArray[np.uint8]:
    """Quantize the image's whole range to this many levels, at most 256."""
    if np.issubdtype(image.dtype, np.integer):
        limits = np.iinfo(image.dtype)
        unit = (image.astype(float) - limits.min) / (float(limits.max) - limits.min + 1)
    else:
        unit = np.asarray(image, float)
    return np.clip(np.floor(unit * levels), 0, levels - 1).astype(np.uint8)


def _check(image: Gray, embryo: Mask) -> None:
    if image.shape != embryo.shape or image.ndim != 2:
        raise ValueError(
            f"the image has shape {image.shape} but the embryo's mask {embryo.shape}; both must have the same (H, W)"
        )
    if not binary_erosion(embryo, np.ones((SMALLEST, SMALLEST))).any():
        raise ValueError(
            f"the embryo has {int(embryo.sum())} pixels and holds no square of {SMALLEST} x {SMALLEST}; "
            "use an image of higher magnification"
        )


def fit_regressor(features: Floats, ratios: Floats, seed: int = 0) -> Callable[[Floats], Floats]:
    """Fit a 64-32-1 perceptron to standardized features (N, F) by least squares.

    Returns
    -------
    callable
        Maps features (M, F) to ratios (M,) between 0 and 1.
    """
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    perceptron = MLPRegressor(hidden_layer_sizes=(64, 32), alpha=DECAY, max_iter=2000, random_state=seed)
    fitted = make_pipeline(StandardScaler(), perceptron).fit(features, ratios)
    return lambda others: np.clip(fitted.predict(others), 0, 1)


@dataclass(frozen=True, eq=False)
class Separation:
    """How well the grades separate.

    Parameters
    ----------
    points
        (N, 2) t-SNE embedding: neighbors stay neighbors, but distances mean little.
    silhouette
        Mean silhouette coefficient of the grades in the standardized features: 1 is well separated, 0 overlapping,
        below 0 mixed up.
    silhouette_of_points
        The same in the t-SNE plane.
    """

    points: Floats
    silhouette: float
    silhouette_of_points: float


def separate(features: Floats, grades: Sequence[str], seed: int = 0) -> Separation:
    """t-SNE (initialized by PCA) of standardized features (N, F), and silhouette coefficients of the grades.

    Raises
    ------
    ValueError
        If there are fewer than five images or two grades, or no grade has two images.
    """
    from sklearn.manifold import TSNE
    from sklearn.metrics import silhouette_score
    from sklearn.preprocessing import StandardScaler

    count, kinds = len(features), len(set(grades))
    if count < 5 or not 2 <= kinds < count:
        raise ValueError(
            f"{count} images of {kinds} grades were given; at least five images, two grades and two images of one "
            "grade are needed"
        )
    standard = StandardScaler().fit_transform(features)
    perplexity = min(PERPLEXITY, (count - 1) / 3)
    points = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(standard).astype(float)
    told = np.asarray(grades)
    return Separation(points, float(silhouette_score(standard, told)), float(silhouette_score(points, told)))
