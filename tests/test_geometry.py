"""The way into the network and back loses at most half a pixel, and masks stay masks on it."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from napari_embryo.geometry import GRAY_MEAN, GRAY_STD, Box, Geometry, grow, normalize, plan, resize
from napari_embryo.measure import iou
from napari_embryo.models.binary_loss import decode
from napari_embryo.settings import Fit, Preprocessing
from napari_embryo.synthetic import draw_blastocyst

FITS: tuple[Fit, ...] = ("letterbox", "stretch")
SIDES = st.integers(48, 200)
SIZES = st.tuples(SIDES, SIDES)


@st.composite
def plans(draw: st.DrawFn, smallest: int = 48) -> Geometry:
    """Whole images and crops of any size, odd ones too, into networks of any size."""
    height, width = draw(SIZES)
    net_hw, fit = draw(SIZES), draw(st.sampled_from(FITS))
    if draw(st.booleans()):
        return plan((height, width), net_hw, fit)
    top, left = draw(st.integers(0, height - smallest)), draw(st.integers(0, width - smallest))
    bottom, right = draw(st.integers(top + smallest, height)), draw(st.integers(left + smallest, width))
    return plan((height, width), net_hw, fit, (top, left, bottom, right))


def dots(
    hw: tuple[int, int], centers: npt.NDArray[np.float64], sigma: npt.NDArray[np.float64]
) -> npt.NDArray[np.float32]:
    """Gaussian dots, (H, W)."""
    y, x = np.ogrid[: hw[0], : hw[1]]
    squares = [((y - cy) / sigma[0]) ** 2 + ((x - cx) / sigma[1]) ** 2 for cy, cx in centers]
    return np.exp(-0.5 * np.array(squares)).sum(0).astype(np.float32)


def centroids(picture: npt.NDArray[np.float32], near: npt.NDArray[np.float64], reach: npt.NDArray[np.float64]) -> Any:
    """Centroid of the gray values around each of the places ``near``, at most ``reach`` away."""
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]].astype(float)
    found = []
    for cy, cx in near:
        window = picture * ((np.abs(y - cy) <= reach[0]) & (np.abs(x - cx) <= reach[1]))
        found.append((float((y * window).sum() / window.sum()), float((x * window).sum() / window.sum())))
    return np.array(found)


def dot_grid(geometry: Geometry) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Nine places spread over the box, off the pixel centers, and the space between them."""
    spacing = np.divide(geometry.box_hw, 3)
    rows, columns = (geometry.box[i] - 0.3 + spacing[i] * (np.arange(3) + 0.5) for i in (0, 1))
    return np.array([(y, x) for y in rows for x in columns]), spacing


@settings(max_examples=60, deadline=None)
@given(geometry=plans(), places=st.lists(st.tuples(st.floats(0, 199), st.floats(0, 199)), min_size=1, max_size=5))
def test_coordinates_go_there_and_back(geometry: Geometry, places: list[tuple[float, float]]) -> None:
    yx = np.array(places)
    np.testing.assert_allclose(geometry.to_image(geometry.to_net(yx)), yx, atol=1e-9)
    np.testing.assert_allclose(geometry.to_net(geometry.to_image(yx)), yx, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(geometry=plans())
def test_dots_come_back_within_half_a_pixel(geometry: Geometry) -> None:
    centers, spacing = dot_grid(geometry)
    net = geometry.image_to_net(dots(geometry.image_hw, centers, spacing / 10))
    back = geometry.net_to_image(net)
    assert back.shape == geometry.image_hw
    assert np.abs(centroids(back, centers, spacing / 2) - centers).max() <= 0.5
    expected, scale = geometry.to_net(centers), np.divide(geometry.scaled_hw, geometry.box_hw)
    assert np.abs(centroids(net, expected, spacing / 2 * scale) - expected).max() <= 0.5


@settings(max_examples=100, deadline=None)
@given(image_hw=SIZES, net_hw=SIZES)
def test_letterbox_keeps_the_aspect_ratio_and_centers(image_hw: tuple[int, int], net_hw: tuple[int, int]) -> None:
    geometry = plan(image_hw, net_hw)
    factor = min(net_hw[0] / image_hw[0], net_hw[1] / image_hw[1])
    assert np.abs(np.subtract(geometry.scaled_hw, np.multiply(image_hw, factor))).max() <= 0.5
    assert any(scaled == side for scaled, side in zip(geometry.scaled_hw, net_hw, strict=True))
    after = np.subtract(net_hw, np.add(geometry.pad_tl, geometry.scaled_hw))
    assert set(np.subtract(after, geometry.pad_tl).tolist()) <= {0, 1}


@settings(max_examples=40, deadline=None)
@given(geometry=plans())
def test_padding_is_what_valid_says(geometry: Geometry) -> None:
    net = geometry.image_to_net(np.ones(geometry.image_hw, np.float32), fill=-7)
    assert net.shape == geometry.net_hw
    np.testing.assert_allclose(net, np.where(geometry.valid(), 1, -7), atol=1e-6)


@pytest.mark.parametrize(
    ("image_hw", "net_hw", "fit", "scaled", "pad"),
    [
        ((390, 440), (288, 320), "letterbox", (284, 320), (2, 0)),
        ((500, 500), (288, 320), "letterbox", (288, 288), (0, 16)),
        ((225, 301), (224, 300), "stretch", (224, 300), (0, 0)),
        ((392, 436), (224, 300), "stretch", (224, 300), (0, 0)),
        ((1, 1000), (32, 32), "letterbox", (1, 32), (15, 0)),
    ],
)
def test_known_plans(
    image_hw: tuple[int, int], net_hw: tuple[int, int], fit: Fit, scaled: tuple[int, int], pad: tuple[int, int]
) -> None:
    geometry = plan(image_hw, net_hw, fit)
    assert (geometry.scaled_hw, geometry.pad_tl) == (scaled, pad)


@pytest.mark.parametrize(
    ("box", "inside"),
    [((-5, -9, 30, 40), (0, 0, 30, 40)), ((20, 30, 99, 99), (20, 30, 60, 80)), ((-1, -1, 61, 81), (0, 0, 60, 80))],
)
def test_a_box_that_leaves_the_image_is_cut_off(box: Box, inside: Box) -> None:
    assert plan((60, 80), (32, 32), box=box).box == inside


@pytest.mark.parametrize("box", [(60, 0, 70, 10), (10, 10, 10, 20), (0, -20, 10, 0), (30, 30, 20, 40)])
def test_a_box_beside_the_image_is_refused(box: Box) -> None:
    with pytest.raises(ValueError, match="lies outside the image of 60 x 80"):
        plan((60, 80), (32, 32), box=box)


@pytest.mark.parametrize(
    ("box", "share", "grown"),
    [
        ((20, 30, 30, 50), 0.1, (19, 28, 31, 52)),
        ((20, 30, 30, 50), 0.0, (20, 30, 30, 50)),
        ((2, 2, 58, 78), 0.5, (0, 0, 60, 80)),
    ],
)
def test_grow(box: Box, share: float, grown: Box) -> None:
    assert grow(box, share, (60, 80)) == grown


@pytest.mark.parametrize("fit", FITS)
def test_a_crop_is_pasted_where_it_was_taken(fit: Fit) -> None:
    geometry = plan((60, 80), (64, 64), fit, (11, 20, 41, 63))
    back = geometry.net_to_image(np.full((64, 64), 0.75, np.float32), outside=-1)
    expected = np.full((60, 80), -1.0)
    expected[11:41, 20:63] = 0.75
    np.testing.assert_allclose(back, expected, atol=1e-6)


def test_a_map_of_any_grid_covers_the_image() -> None:
    geometry = plan((97, 131), (64, 96))
    ramp = np.linspace(0, 1, 6, dtype=np.float32)[None].repeat(4, 0)
    shown = geometry.grid_to_image(ramp)
    assert shown.shape == (97, 131)
    assert (np.diff(shown, axis=1) >= -1e-6).all()
    assert np.ptp(shown, axis=0).max() < 1e-6


@settings(max_examples=40, deadline=None)
@given(hw=st.tuples(st.integers(8, 60), st.integers(8, 60)), to=st.tuples(st.integers(4, 60), st.integers(4, 60)))
def test_resize_is_the_antialiased_bilinear_of_half_pixel_centers(hw: tuple[int, int], to: tuple[int, int]) -> None:
    image = np.random.default_rng(hw[0] * 61 + to[0]).random(hw, np.float32)
    reference = interpolate(torch.from_numpy(image)[None, None], size=to, mode="bilinear", antialias=True)[0, 0].numpy()
    np.testing.assert_allclose(resize(image, to), reference, atol=1e-4)


def test_shrinking_by_two_weighs_four_pixels_as_a_tent() -> None:
    line = np.zeros((16, 16), np.float32)
    line[:, 7] = 1
    np.testing.assert_allclose(resize(line, (8, 8))[4], [0, 0, 0, 3 / 8, 1 / 8, 0, 0, 0], atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(geometry=plans(), seed=st.integers(0, 99))
def test_a_mask_stays_a_mask(geometry: Geometry, seed: int) -> None:
    mask = np.random.default_rng(seed).random(geometry.image_hw) > 0.5
    net = geometry.mask_to_net(mask)
    assert net.dtype == np.bool_
    assert not net[~geometry.valid()].any()


@settings(max_examples=40, deadline=None)
@given(geometry=plans())
def test_full_and_empty_masks_survive(geometry: Geometry) -> None:
    np.testing.assert_array_equal(geometry.mask_to_net(np.ones(geometry.image_hw, bool)), geometry.valid())
    assert not geometry.mask_to_net(np.zeros(geometry.image_hw, bool)).any()


@pytest.mark.parametrize("pad", [(0, 0), (16, 9)], ids=["same size", "letterboxed"])
def test_a_perfect_prediction_scores_one(pad: tuple[int, int]) -> None:
    height, width = 97, 131
    drawn = draw_blastocyst(3, shape=(height, width)).stack(("ICM", "TE", "ZP"))
    geometry = Geometry(
        (height, width), (0, 0, height, width), (height, width), pad, (height + 2 * pad[0], width + 2 * pad[1])
    )
    truth = np.stack([geometry.mask_to_net(mask) for mask in drawn])
    logits = torch.from_numpy(np.where(truth, 20.0, -20.0))
    masks, _ = decode(logits, geometry, ("ICM", "TE", "ZP"), 0.5)
    np.testing.assert_array_equal(masks, drawn)
    assert [iou(found, truth) for found, truth in zip(masks, drawn, strict=True)] == [1, 1, 1]


PICTURE = np.random.default_rng(0).integers(0, 256, (40, 56), dtype=np.uint8)
PICTURES = {
    "uint8": PICTURE,
    "uint16": PICTURE.astype(np.uint16) * 257,
    "12 bits in 16": PICTURE.astype(np.uint16) * 16 + 7,
    "int16, below zero": PICTURE.astype(np.int16) - 300,
    "float in 0..1": PICTURE / np.float32(255),
    "double": PICTURE.astype(np.float64) * 1e-3 + 2,
    "not contiguous": np.asfortranarray(PICTURE),
}


@pytest.mark.parametrize("picture", PICTURES.values(), ids=PICTURES)
def test_normalized_the_same_from_every_dtype(picture: npt.NDArray[Any]) -> None:
    low, high = np.percentile(PICTURE, (0.5, 99.5))
    expected = ((np.clip((PICTURE - low) / (high - low), 0, 1)) - GRAY_MEAN) / GRAY_STD
    found = normalize(picture, Preprocessing())
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_normalized_as_imagenet_was() -> None:
    from torchvision.models import ResNet50_Weights

    preset = ResNet50_Weights.DEFAULT.transforms()
    assert pytest.approx(np.mean(preset.mean), abs=5e-4) == GRAY_MEAN
    assert pytest.approx(np.mean(preset.std), abs=5e-4) == GRAY_STD


@settings(max_examples=40, deadline=None)
@given(gain=st.floats(1e-3, 1e3), offset=st.floats(-100, 100))
def test_brightness_and_contrast_do_not_matter(gain: float, offset: float) -> None:
    plain = normalize(PICTURE, Preprocessing())
    np.testing.assert_allclose(normalize(PICTURE * gain + offset * gain, Preprocessing()), plain, atol=2e-3)


@pytest.mark.parametrize("value", [0, 7, 65535, 0.25])
def test_a_flat_image_becomes_zeros(value: float) -> None:
    flat = normalize(np.full((20, 30), value), Preprocessing())
    assert not flat.any()
    assert flat.shape == (20, 30)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("hw", [(40, 56), (701, 703)], ids=["small", "larger than the sample of the percentiles"])
def test_one_bad_pixel_is_refused(bad: float, hw: tuple[int, int]) -> None:
    image = np.random.default_rng(0).random(hw)
    image[1, 1] = bad
    with pytest.raises(ValueError, match="NaN or infinite"):
        normalize(image, Preprocessing())
