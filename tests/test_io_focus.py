"""Best focus and extended depth of field."""

from pathlib import Path

import dask.array
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_embryo.image import EmbryoImage
from napari_embryo.io import (
    best_focus,
    embryo_focus,
    extended_depth_of_field,
    focus_image,
    open_plan,
    plan_folder,
    sharpness,
)

Array = npt.NDArray[np.float64]


def scene(seed: int = 0) -> Array:
    noise = np.random.default_rng(seed).random((96, 96))
    picture: Array = 100 + 400 * (ndimage.gaussian_filter(noise, 1.0) - 0.5)
    return picture


def focal_stack(sharp: int, n: int = 5, seed: int = 0) -> Array:
    return np.stack([ndimage.gaussian_filter(scene(seed), 1.5 * abs(i - sharp)) for i in range(n)])


def test_sharpness_is_scipys_laplacian() -> None:
    picture = scene()
    expected = ndimage.laplace(picture)[1:-1, 1:-1].var() / picture.mean() ** 2
    assert sharpness(picture) == pytest.approx(expected)


@settings(max_examples=20, deadline=None)
@given(sharp=st.integers(0, 4), gain=st.floats(0.1, 10), seed=st.integers(0, 99))
def test_the_sharp_plane_is_found_at_any_exposure(sharp: int, gain: float, seed: int) -> None:
    stack = focal_stack(sharp, seed=seed)
    assert best_focus(stack) == embryo_focus(stack) == sharp
    stack[(sharp + 1) % 5] *= gain
    assert best_focus(stack) == embryo_focus(stack) == sharp


def test_a_sharp_well_wall_does_not_choose_the_plane() -> None:
    y, x = np.mgrid[:200, :200]
    radius = np.hypot(y - 100, x - 100)
    embryo = np.where(radius < 50, 1.0, 0.0)
    texture = ndimage.gaussian_filter(np.random.default_rng(0).random((200, 200)), 1) * embryo * 300
    wall = (np.abs(radius - 90) < 1) * 200.0
    stack = np.stack(
        [100 + ndimage.gaussian_filter(texture, 1 + abs(i - 3)) + ndimage.gaussian_filter(wall, i) for i in range(5)]
    )
    assert best_focus(stack) == 0
    assert embryo_focus(stack) == 3


@pytest.mark.parametrize("value", [0, 100])
def test_flat_planes(value: int) -> None:
    flat = np.full((3, 8, 8), value, "uint8")
    assert best_focus(flat) == embryo_focus(flat) == 0
    np.testing.assert_array_equal(extended_depth_of_field(flat), flat[0])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_extended_depth_of_field_is_sharp_everywhere(dtype: str) -> None:
    sharp = scene()
    blurred = ndimage.gaussian_filter(sharp, 3)
    left = np.arange(96) < 48
    stack = np.stack([np.where(left, sharp, blurred), np.where(left, blurred, sharp)]).astype(dtype)
    result = extended_depth_of_field(stack)
    assert result.dtype == stack.dtype
    assert (result >= stack.min(0)).all()
    assert (result <= stack.max(0)).all()
    inside = np.r_[8:38, 58:88]
    error = np.abs(result - sharp)[:, inside].mean()
    assert error < 0.15 * np.abs(stack[0] - sharp)[:, inside].mean() + 0.5


@pytest.mark.parametrize("how", ["best", "edf"])
def test_each_frame_of_a_time_lapse(how: str) -> None:
    frames = np.stack([focal_stack(sharp, seed=sharp) for sharp in (1, 4, 2)]).astype("uint8")
    for data in (frames, dask.array.from_array(frames, chunks=(1, 1, 96, 96))):
        image = EmbryoImage(data, "TFYX", "e", hours=(0, 1, 2), focus_um=(-2, -1, 0, 1, 2))
        focused = focus_image(image, how)  # type: ignore[arg-type]
        assert (focused.axes, focused.shape, focused.hours, focused.focus_um) == ("TYX", (3, 96, 96), (0, 1, 2), None)
        expected = [
            stack[sharp] if how == "best" else extended_depth_of_field(stack)
            for stack, sharp in zip(frames, (1, 4, 2), strict=True)
        ]
        np.testing.assert_array_equal(np.asarray(focused.data), expected)


def test_no_plane_is_computed_before_it_is_shown() -> None:
    def fail(block: Array) -> Array:
        raise AssertionError

    data = dask.array.zeros((3, 2, 8, 8), chunks=(1, 1, 8, 8)).map_blocks(fail, dtype="f8", meta=np.empty((0,) * 4))
    assert focus_image(EmbryoImage(data, "TFYX", "e"), "best").shape == (3, 8, 8)


def test_planes_are_needed() -> None:
    with pytest.raises(ValueError, match="focal planes"):
        focus_image(EmbryoImage(np.zeros((4, 4)), "YX", "e"), "best")


def test_real_blastocysts(data_dir: Path) -> None:
    """Seven planes from below to above: chosen is one in which the embryo, not the bottom of the well, is in focus."""
    images = open_plan(plan_folder(data_dir / "focal"))
    chosen = [embryo_focus(image.data.compute()) for image in images]
    assert len(chosen) == 12
    assert all(1 <= plane <= 4 for plane in chosen)
    assert focus_image(images[0], "best").metadata["focus_plane"] == chosen[0]
