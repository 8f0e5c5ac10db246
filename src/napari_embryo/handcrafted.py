"""What was done before networks: textures of the embryo in numbers, and a small regressor upon them.

The baselines of the fragmentation papers: gray-level co-occurrence, multi-scale uniform local binary
patterns with a multilayer perceptron, and t-SNE to look at how far the grades lie apart. Only what lies within the
embryo counts. The last two need scikit-learn (the extra ``baselines``).
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
"""Points and radius of each scale of the local binary patterns."""
SMALLEST = 2 * max(radius for _, radius in PATTERNS) + 1
PERPLEXITY = 30.0
DECAY = 1.0
"""Of the perceptron's weights; with scikit-learn's 1e-4 it learns the few pictures there are by heart."""


def glcm_names() -> tuple[str, ...]:
    """Of :func:`glcm_features`."""
    return tuple(f"{name} {what} d{d}" for name in PROPERTIES for what in ("mean", "range") for d in DISTANCES)


def glcm_features(image: Gray, embryo: Mask) -> Floats:
    """(36,): mean and range over four angles of six properties at three distances, of pairs within the embryo.

    Parameters
    ----------
    image
        (H, W) gray; whole numbers fill the range of their type, others 0 to 1. 32 levels, of a fixed range.
    embryo
        (H, W) where the embryo is.

    Raises
    ------
    ValueError
        When the embryo is too small to hold the pairs.
    """
    _check(image, embryo)
    # Pairs with a pixel outside have a level of their own, which is cut out.
    levels = np.where(embryo, _quantized(image, LEVELS), LEVELS).astype(np.uint8)
    pairs = graycomatrix(levels, DISTANCES, ANGLES, levels=LEVELS + 1, symmetric=True)[:LEVELS, :LEVELS].astype(float)
    shares = pairs / np.maximum(pairs.sum((0, 1)), 1)
    each = [graycoprops(shares, name) for name in PROPERTIES]
    return np.concatenate([np.concatenate((values.mean(1), np.ptp(values, 1))) for values in each])


def lbp_features(image: Gray, embryo: Mask) -> Floats:
    """(54,): histograms of uniform local binary patterns at three scales, each of sum 1.

    Counted are the pixels whose whole neighborhood lies in the embryo. Parameters as :func:`glcm_features`.
    """
    _check(image, embryo)
    gray = _quantized(image, 256)
    return np.concatenate([_histogram(gray, embryo, points, radius) for points, radius in PATTERNS])


def _histogram(gray: npt.NDArray[np.uint8], embryo: Mask, points: int, radius: int) -> Floats:
    inside = binary_erosion(embryo, np.ones((2 * radius + 1,) * 2))
    patterns = local_binary_pattern(gray, points, radius, method="uniform")[inside].astype(int)
    return np.bincount(patterns, minlength=points + 2) / len(patterns)


def _quantized(image: Gray, levels: int) -> npt.NDArray[np.uint8]:
    """The image's whole range in so many steps, 256 at most."""
    if np.issubdtype(image.dtype, np.integer):
        limits = np.iinfo(image.dtype)
        unit = (image.astype(float) - limits.min) / (float(limits.max) - limits.min + 1)
    else:
        unit = np.asarray(image, float)
    return np.clip(np.floor(unit * levels), 0, levels - 1).astype(np.uint8)


def _check(image: Gray, embryo: Mask) -> None:
    if image.shape != embryo.shape or image.ndim != 2:
        raise ValueError(
            f"an image of {image.shape} and an embryo of {embryo.shape} came; needed are two of one (H, W)"
        )
    if not binary_erosion(embryo, np.ones((SMALLEST, SMALLEST))).any():
        raise ValueError(
            f"an embryo of {int(embryo.sum())} pixels came, which holds no square of {SMALLEST} x {SMALLEST}; "
            "take a larger picture of it"
        )


def fit_regressor(features: Floats, ratios: Floats, seed: int = 0) -> Callable[[Floats], Floats]:
    """A perceptron 64-32-1 on standardized features (N, F), by squared errors.

    Returns
    -------
    callable
        Features (M, F) -> ratios (M,) between 0 and 1.
    """
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    perceptron = MLPRegressor(hidden_layer_sizes=(64, 32), alpha=DECAY, max_iter=2000, random_state=seed)
    fitted = make_pipeline(StandardScaler(), perceptron).fit(features, ratios)
    return lambda others: np.clip(fitted.predict(others), 0, 1)


@dataclass(frozen=True, eq=False)
class Separation:
    """How far the grades lie apart.

    Parameters
    ----------
    points
        (N, 2) by t-SNE: neighbors stay neighbors, distances mean little.
    silhouette
        Mean silhouette of the grades in the standardized features: 1 far apart, 0 overlapping, below 0 mixed up.
    silhouette_of_points
        The same upon the t-SNE's plane.
    """

    points: Floats
    silhouette: float
    silhouette_of_points: float


def separate(features: Floats, grades: Sequence[str], seed: int = 0) -> Separation:
    """t-SNE (from the principal components) of standardized features (N, F), and silhouettes of the grades.

    Raises
    ------
    ValueError
        When there are fewer than five pictures or not at least two grades, one of them of two pictures.
    """
    from sklearn.manifold import TSNE
    from sklearn.metrics import silhouette_score
    from sklearn.preprocessing import StandardScaler

    count, kinds = len(features), len(set(grades))
    if count < 5 or not 2 <= kinds < count:
        raise ValueError(
            f"{count} pictures of {kinds} grades came; needed are five or more, of two grades, and two of one grade"
        )
    standard = StandardScaler().fit_transform(features)
    perplexity = min(PERPLEXITY, (count - 1) / 3)
    points = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(standard).astype(float)
    told = np.asarray(grades)
    return Separation(points, float(silhouette_score(standard, told)), float(silhouette_score(points, told)))
