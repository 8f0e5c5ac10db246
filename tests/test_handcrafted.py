"""Textures of the embryo: scikit-image's on a whole picture, and nothing of what lies outside."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.ndimage import binary_erosion, gaussian_filter
from skimage.feature import graycomatrix, graycoprops, local_binary_pattern

from napari_embryo.handcrafted import fit_regressor, glcm_features, glcm_names, lbp_features, separate

HW = (61, 74)
Features = Callable[[npt.NDArray[Any], npt.NDArray[np.bool_]], npt.NDArray[np.float64]]
both = pytest.mark.parametrize("features", [glcm_features, lbp_features])


def picture(seed: int = 0, blur: float = 1.0) -> npt.NDArray[np.uint8]:
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=HW), blur)
    return np.clip(128 + 60 * noise / noise.std(), 0, 255).astype(np.uint8)


def disc() -> npt.NDArray[np.bool_]:
    y, x = np.indices(HW)
    return np.asarray((y - 30) ** 2 + (x - 35) ** 2 < 24**2)


WHOLE = np.ones(HW, bool)


def test_co_occurrence_in_a_whole_picture_is_scikit_image_s() -> None:
    found = dict(zip(glcm_names(), glcm_features(picture(), WHOLE), strict=True))
    angles = np.deg2rad([0, 45, 90, 135])
    matrix = graycomatrix(picture() // 8, [1, 2, 4], angles, levels=32, symmetric=True, normed=True)
    for name in ("contrast", "dissimilarity", "homogeneity", "energy", "correlation", "ASM"):
        for distance, values in zip((1, 2, 4), graycoprops(matrix, name), strict=True):
            assert found[f"{name} mean d{distance}"] == pytest.approx(values.mean(), rel=1e-9)
            assert found[f"{name} range d{distance}"] == pytest.approx(values.max() - values.min(), abs=1e-9)


def test_co_occurrence_counts_the_pairs_within_the_embryo() -> None:
    """One by one, at the first distance and angle."""
    image, embryo = picture() // 8, disc()
    pairs = np.zeros((32, 32))
    for y, x in np.argwhere(embryo):
        if x + 1 < HW[1] and embryo[y, x + 1]:
            pairs[image[y, x], image[y, x + 1]] += 1
            pairs[image[y, x + 1], image[y, x]] += 1
    shares, levels = pairs / pairs.sum(), np.arange(32)
    contrast = (shares * (levels[:, None] - levels) ** 2).sum()
    angles = [_contrast(image, embryo, shift) for shift in ((0, 1), (-1, 1), (1, 0), (-1, -1))]
    assert angles[0] == pytest.approx(contrast)
    found = dict(zip(glcm_names(), glcm_features(picture(), embryo), strict=True))
    assert found["contrast mean d1"] == pytest.approx(np.mean(angles))
    assert found["contrast range d1"] == pytest.approx(max(angles) - min(angles))


def _contrast(image: npt.NDArray[Any], embryo: npt.NDArray[np.bool_], shift: tuple[int, int]) -> float:
    """Mean squared difference of neighbors; at this distance diagonal ones touch."""
    near = np.roll(image.astype(float), shift, (0, 1)), np.roll(embryo, shift, (0, 1))
    return float(((image - near[0]) ** 2)[embryo & near[1]].mean())


def test_local_binary_patterns_of_a_whole_picture_are_scikit_image_s() -> None:
    """Where the whole neighborhood lies in the picture."""
    found = np.split(lbp_features(picture(), WHOLE), [10, 28])
    for histogram, (points, radius) in zip(found, ((8, 1), (16, 2), (24, 3)), strict=True):
        patterns = local_binary_pattern(picture(), points, radius, "uniform")[radius:-radius, radius:-radius]
        expected, _ = np.histogram(patterns, np.arange(points + 3), density=True)
        np.testing.assert_allclose(histogram, expected, atol=1e-12)


def test_a_lonely_peak_and_a_flat_picture_have_known_patterns() -> None:
    flat = np.full(HW, 90, np.uint8)
    for histogram, all_equal in zip(np.split(lbp_features(flat, disc()), [10, 28]), (8, 16, 24), strict=True):
        assert histogram[all_equal] == 1
    peak = flat.copy()
    peak[30, 35] = 200
    counted = binary_erosion(disc(), np.ones((3, 3))).sum()
    assert lbp_features(peak, disc())[0] == pytest.approx(1 / counted)


@both
def test_what_lies_outside_the_embryo_changes_nothing(features: Features) -> None:
    other = np.where(disc(), picture(), picture(9, blur=0.3))
    assert not np.array_equal(other, picture())
    np.testing.assert_array_equal(features(other, disc()), features(picture(), disc()))
    assert not np.array_equal(features(picture(), disc()), features(picture(), WHOLE))
    assert not np.array_equal(features(picture(3), disc()), features(picture(), disc()))


@both
@pytest.mark.parametrize("dtype", [np.uint16, np.float64])
def test_the_range_is_that_of_the_type(features: Features, dtype: Any) -> None:
    same = picture().astype(np.uint16) * 257 if dtype is np.uint16 else (picture() + 0.5) / 256
    np.testing.assert_allclose(features(same.astype(dtype), disc()), features(picture(), disc()), atol=1e-12)


@both
def test_as_many_numbers_as_the_design_all_finite(features: Features) -> None:
    size = {glcm_features: 36, lbp_features: 54}[features]
    for image in (picture(), np.zeros(HW, np.uint8), np.full(HW, 255, np.uint8)):
        found = features(image, disc())
        assert found.shape == (size,)
        assert np.isfinite(found).all()
    assert len(set(glcm_names())) == 36


@both
def test_what_does_not_fit_is_refused(features: Features) -> None:
    with pytest.raises(ValueError, match=r"both must have the same \(H, W\)"):
        features(picture(), disc()[:-1])
    with pytest.raises(ValueError, match="holds no square of 7 x 7"):
        features(picture(), np.eye(*HW, dtype=bool))


def set_of_pictures(count: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The rougher the more fragmented."""
    ratios = np.random.default_rng(0).uniform(0, 0.6, count)
    features = [lbp_features(picture(i, blur=3 - 4 * ratio), disc()) for i, ratio in enumerate(ratios)]
    return np.stack(features), ratios


def test_the_regressor_learns_what_textures_tell() -> None:
    features, ratios = set_of_pictures(60)
    predict = fit_regressor(features[:40], ratios[:40])
    error = np.abs(predict(features[40:]) - ratios[40:]).mean()
    assert error < 0.5 * np.abs(np.median(ratios[:40]) - ratios[40:]).mean()
    np.testing.assert_array_equal(fit_regressor(features[:40], ratios[:40])(features[40:]), predict(features[40:]))


def test_ratios_stay_ratios() -> None:
    features, ratios = set_of_pictures(30)
    found = fit_regressor(features, ratios)(50 * (features - features.mean(0)))
    assert found.min() >= 0
    assert found.max() <= 1


def test_separation_tells_apart_what_lies_apart() -> None:
    features, ratios = set_of_pictures(40)
    grades = np.where(ratios < 0.3, "A", "D")
    apart = separate(features, list(grades))
    mixed = separate(features, list(np.random.default_rng(1).permutation(grades)))
    assert apart.points.shape == (40, 2)
    assert np.isfinite(apart.points).all()
    assert apart.silhouette > 0.1 > abs(mixed.silhouette)
    assert apart.silhouette_of_points > mixed.silhouette_of_points + 0.1
    np.testing.assert_array_equal(apart.points, mixed.points)


@pytest.mark.parametrize(("count", "kinds"), [(4, "AABB"), (6, "AAAAAA"), (5, "ABCDE")])
def test_too_few_pictures_or_grades_are_refused(count: int, kinds: str) -> None:
    with pytest.raises(ValueError, match=f"{count} images of {len(set(kinds))} grades were given"):
        separate(np.random.default_rng(0).normal(size=(count, 36)), kinds)
