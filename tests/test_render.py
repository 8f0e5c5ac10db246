"""Pictures for people: what is colored, what is left as it was."""

import numpy as np
import pytest

from napari_embryo.render import (
    COLORS,
    cell_color,
    color_of,
    gray_to_rgb,
    overlay,
    overlay_cells,
    tiled,
    with_legend,
)

CLASSES = ("ICM", "TE", "ZP")


def square(top: int, left: int, size: int, shape: tuple[int, int] = (40, 60)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[top : top + size, left : left + size] = True
    return mask


@pytest.fixture
def gray() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 60)).astype(np.uint8)


def test_pixels_outside_the_masks_are_the_gray_picture(gray: np.ndarray) -> None:
    masks = np.stack([square(2, 2, 9), square(15, 20, 9), square(28, 40, 9)])
    drawn = overlay(gray, masks, CLASSES)
    outside = ~masks.any(axis=0)
    np.testing.assert_array_equal(drawn[outside], gray_to_rgb(gray)[outside])


def test_each_class_has_its_outline_in_its_own_color_and_a_light_fill(gray: np.ndarray) -> None:
    masks = np.stack([square(2, 2, 9), square(15, 20, 9), square(28, 40, 9)])
    drawn = overlay(gray, masks, CLASSES)
    for mask, name in zip(masks, CLASSES, strict=True):
        ys, xs = np.nonzero(mask)
        rim = mask & ((np.indices(mask.shape)[0] == ys.min()) | (np.indices(mask.shape)[1] == xs.max()))
        np.testing.assert_array_equal(drawn[rim], np.broadcast_to(COLORS[name], (rim.sum(), 3)))
        center = drawn[ys.min() + 4, xs.min() + 4].astype(int)
        plain = gray_to_rgb(gray)[ys.min() + 4, xs.min() + 4].astype(int)
        assert (np.abs(center - plain) <= np.abs(np.array(COLORS[name]) - plain) / 2).all()


def test_empty_masks_draw_nothing(gray: np.ndarray) -> None:
    np.testing.assert_array_equal(overlay(gray, np.zeros((3, 40, 60), bool), CLASSES), gray_to_rgb(gray))


def test_colors_differ_from_each_other_and_from_an_unknown_class() -> None:
    colors = [color_of(name) for name in (*CLASSES, "fragment")]
    assert len(set(colors)) == 4


@pytest.mark.parametrize(
    ("scale", "offset", "dtype"), [(1, 0, np.uint8), (257, 0, np.uint16), (1e-3, -4.0, np.float32), (10, 0, np.float64)]
)
def test_the_gray_range_and_type_of_the_image_do_not_matter(
    gray: np.ndarray, scale: float, offset: float, dtype: type
) -> None:
    other = (gray.astype(np.float64) * scale + offset).astype(dtype)
    assert np.abs(gray_to_rgb(other).astype(int) - gray_to_rgb(gray)).max() <= 1


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_flat_image_is_drawn(value: int) -> None:
    picture = gray_to_rgb(np.full((20, 20), value, np.uint8))
    assert (picture.shape, picture.dtype, len(np.unique(picture))) == ((20, 20, 3), np.uint8, 1)


@pytest.mark.parametrize("width", [16, 60, 500])
def test_the_legend_stands_below_and_leaves_the_picture_alone(width: int) -> None:
    picture = np.full((30, width, 3), 7, np.uint8)
    drawn = with_legend(picture, CLASSES, "embryo T 3")
    assert drawn.shape[1:] == (width, 3)
    np.testing.assert_array_equal(drawn[:30], picture)
    if width == 500:
        found = {tuple(color) for color in drawn[30:].reshape(-1, 3).tolist()}
        assert {COLORS[name] for name in CLASSES} <= found


@pytest.mark.parametrize("width", [256, 300, 500])
def test_a_line_on_a_small_picture_is_written_smaller_not_cut_off(width: int) -> None:
    line = "Fragments 6.1 % of the embryo (mask), 5.3 % (regression)"
    drawn = with_legend(np.zeros((4, width, 3), np.uint8), (), line)
    written = (drawn[4:] > 100).any(axis=(0, 2)).nonzero()[0]
    assert len(written)
    assert written.max() < width - 3
    cut = with_legend(np.zeros((4, 60, 3), np.uint8), (), line)
    assert (cut[4:, -6:] > 60).any()


def test_the_legend_has_the_colors_that_are_given_over_and_over() -> None:
    given = ((1, 2, 3), (250, 2, 3))
    drawn = with_legend(np.zeros((4, 200, 3), np.uint8), ("a", "ICM", "c"), colors=given)
    line = drawn[4 + 10]  # through the squares of ten pixels
    assert [int((line == color).all(axis=-1).sum()) for color in given] == [20, 10]


@pytest.mark.parametrize(
    ("count", "columns", "shape"), [(1, 1, (5, 7)), (4, 4, (5, 28)), (5, 4, (10, 28)), (3, 2, (10, 14))]
)
def test_tiles_stand_row_after_row(count: int, columns: int, shape: tuple[int, int]) -> None:
    pictures = [np.full((5, 7, 3), 10 * (i + 1), np.uint8) for i in range(count)]
    sheet = tiled(pictures, columns)
    assert sheet.shape == (*shape, 3)
    for i in range(count):
        row, column = divmod(i, columns)
        assert (sheet[5 * row : 5 * row + 5, 7 * column : 7 * column + 7] == 10 * (i + 1)).all()
    assert (sheet == 0).sum() == (shape[0] * shape[1] - count * 35) * 3


def test_every_cell_has_its_whole_outline_also_upon_others(gray: np.ndarray) -> None:
    masks = np.stack([square(2, 2, 24), square(18, 24, 20)])  # the numbers in their middles lie on no outline
    drawn = overlay_cells(gray, masks, [1, 9])
    rims = [square(2, 2, 24) & ~square(3, 3, 22), square(18, 24, 20) & ~square(19, 25, 18)]
    for rim, number in ((rims[0] & ~rims[1], 1), (rims[1], 9)):
        np.testing.assert_array_equal(drawn[rim], np.broadcast_to(cell_color(number), (rim.sum(), 3)))
    outside = ~masks.any(axis=0)
    np.testing.assert_array_equal(drawn[outside], gray_to_rgb(gray)[outside])


def test_a_number_has_one_color_and_neighbors_have_others(gray: np.ndarray) -> None:
    assert len({cell_color(number) for number in range(1, 8)}) == 7
    mask = square(5, 5, 30)[None]
    np.testing.assert_array_equal(overlay_cells(gray, mask, [3])[5], overlay_cells(gray, mask, [10])[5])


def test_many_cells_and_none_are_drawn(gray: np.ndarray) -> None:
    many = np.stack([square(i, i, 20) for i in range(20)])
    assert overlay_cells(gray, many, range(1, 21)).shape == (40, 60, 3)
    np.testing.assert_array_equal(overlay_cells(gray, many[:0], []), gray_to_rgb(gray))
