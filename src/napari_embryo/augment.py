"""Training samples as the network sees them: resized, normalized and, in training, randomly augmented."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import nan

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from napari_embryo import geometry
from napari_embryo.data import Sample, Truth
from napari_embryo.data.labels import are_cells
from napari_embryo.families import BLASTOCYST_CLASSES
from napari_embryo.geometry import Box
from napari_embryo.render import color_of
from napari_embryo.settings import GRADES, Augmentation, Preprocessing
from napari_embryo.synthetic import scene

CACHE_BYTES = 2**30
"""Size of the memory cache of images and masks, which saves reading every file again in each epoch."""
SMALLEST_CELL = 16
"""Pixels at the network's size; a cell with fewer (cut off or tiny) is too small to be found."""
_ORDER = 2**32 - 1
"""Used in place of a sample index to seed the order; no sample has it, so no random state is shared."""


def order(count: int, seed: int, epoch: int) -> list[int]:
    """The random order in which an epoch visits ``count`` samples."""
    places: list[int] = np.random.default_rng((seed, epoch, _ORDER)).permutation(count).tolist()
    return places


class TrainingSet(Dataset[dict[str, Tensor]]):
    """Samples at the network's size; item ``i`` of epoch ``e`` is the same in every run, process and order.

    Parameters
    ----------
    samples
        What to learn from; a sample may occur several times and is augmented differently each time.
    preprocessing
        Size and normalization.
    augmentation
        How samples are augmented; None uses the plain letterboxed image.
    seed
        Random seed of the augmentation.
    cells
        Whether items also have ``cells`` (N, h, w) and ``visible`` (N, h, w); the latter equals the former if the
        source does not annotate visible parts. An empty mask is a cell outside the image or too small to be found.
    cache_bytes
        Size of the memory cache.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        preprocessing: Preprocessing,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        *,
        cells: bool = False,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.samples, self.preprocessing, self.augmentation, self.seed = samples, preprocessing, augmentation, seed
        self.cells, self.epoch = cells, 0
        self._kept: dict[Sample, Truth] = {}
        self._room = cache_bytes

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.item(self.epoch, index)

    def item(self, epoch: int, index: int) -> dict[str, Tensor]:
        """``image`` (1, h, w), ``masks`` (C, h, w), ``valid`` (1, h, w), ``known`` (C,) of one visit."""
        truth = self.read(index)
        if self.augmentation is None:
            return _without_remnants(to_targets(truth, self.preprocessing, self._as_in_use(truth), cells=self.cells))
        rng = np.random.default_rng((self.seed, epoch, index))
        return _without_remnants(_augmented(truth, self.preprocessing, self.augmentation, rng, self.cells))

    def _as_in_use(self, truth: Truth) -> Box | None:
        """The closer look that the predictor would take if it had found the embryo."""
        return geometry.closer_look(truth.box, truth.image.shape, self.preprocessing.look_again_below)

    def read(self, index: int) -> Truth:
        """The annotations of an image, kept in memory as long as there is room."""
        sample = self.samples[index]
        if sample in self._kept:
            return self._kept[sample]
        truth = sample.read()
        size = _bytes(truth)
        if size <= self._room:
            self._room -= size
            self._kept[sample] = truth
        return truth


def _bytes(truth: Truth) -> int:
    arrays = (truth.image, truth.masks, truth.known, truth.cells, truth.visible)
    return sum(array.nbytes for array in arrays if array is not None)


def to_targets(
    truth: Truth, preprocessing: Preprocessing, box: Box | None = None, *, cells: bool = False
) -> dict[str, Tensor]:
    """``image`` (1, h, w), ``masks`` (C, h, w), ``valid`` (1, h, w), ``known`` (C,) at the network's size.

    Also ``ratio``, ``low``, ``high`` of the whole image: the annotated ratio and the interval of its grade, or NaN.
    """
    plan = geometry.plan(truth.image.shape, preprocessing.net_hw, preprocessing.fit, box)
    drawn = {"masks": truth.masks, **(_silhouettes(truth) if cells else {})}
    return {
        "image": tv_tensors.Image(torch.from_numpy(geometry.network_input(truth.image, plan, preprocessing))),
        "valid": tv_tensors.Mask(torch.from_numpy(plan.valid())[None]),
        "known": torch.from_numpy(truth.known),
        **_labels(truth),
        **{name: _mask(masks, plan) for name, masks in drawn.items()},
    }


def _labels(truth: Truth) -> dict[str, Tensor]:
    """Ratio and grade interval of the whole image; NaN if not annotated."""
    low, high = (nan, nan) if truth.grade is None else GRADES[truth.grade]
    told = {"ratio": nan if truth.ratio is None else truth.ratio, "low": low, "high": high}
    return {name: torch.tensor(value, dtype=torch.float32) for name, value in told.items()}


def _silhouettes(truth: Truth) -> dict[str, npt.NDArray[np.bool_]]:
    return {"cells": truth.cells, "visible": truth.cells if truth.visible is None else truth.visible}


def _without_remnants(item: dict[str, Tensor]) -> dict[str, Tensor]:
    """Empty the masks of cells that are too small to be found."""
    if "cells" in item:
        is_there = item["cells"].flatten(1).sum(1) >= SMALLEST_CELL
        for name in ("cells", "visible"):
            item[name] = tv_tensors.Mask(item[name].as_subclass(Tensor) & is_there[:, None, None])
    return item


def _mask(masks: npt.NDArray[np.bool_], plan: geometry.Geometry) -> tv_tensors.Mask:
    net = np.zeros((len(masks), *plan.net_hw), bool)
    for i, mask in enumerate(masks):
        net[i] = plan.mask_to_net(mask)
    return tv_tensors.Mask(torch.from_numpy(net))


_FINER = 1.25
"""Geometry is augmented on a finer grid and then shrunk with anti-aliasing, as in prediction."""


def _augmented(
    truth: Truth, preprocessing: Preprocessing, how: Augmentation, rng: np.random.Generator, cells: bool
) -> dict[str, Tensor]:
    if rng.random() < how.wells and fills_its_picture(truth):
        truth = in_a_well(truth, rng)
    box, warp = _random_box(truth, how, rng), _random_warp(how, rng)
    if warp.is_identity:
        item = to_targets(truth, preprocessing, box, cells=cells)
    else:
        height, width = preprocessing.net_hw
        finer = preprocessing.model_copy(update={"height": round(height * _FINER), "width": round(width * _FINER)})
        item = _warped(to_targets(truth, finer, box, cells=cells), warp, preprocessing.net_hw)
    image, valid = (item[name].as_subclass(Tensor) for name in ("image", "valid"))
    item["image"] = tv_tensors.Image(_photometric(image, how, rng) * valid)
    return item


def _random_box(truth: Truth, how: Augmentation, rng: np.random.Generator) -> Box | None:
    """The whole image, or a crop around the embryo like the predictor's closer look."""
    margin = rng.uniform(0.02, 0.3)
    return geometry.grow(truth.box, margin, truth.image.shape) if rng.random() < how.crop else None


@dataclass(frozen=True)
class _Warp:
    """Angle in degrees, shift as a fraction of the image (x, y), scale, and mirroring left-right and up-down."""

    angle: float
    shift: tuple[float, float]
    scale: float
    shear: float
    mirrored: tuple[bool, bool]

    @property
    def is_identity(self) -> bool:
        return self == _Warp(0, (0, 0), 1, 0, (False, False))


def _random_warp(how: Augmentation, rng: np.random.Generator) -> _Warp:
    angle, dx, dy, shear = (float(v) for v in rng.uniform(-1, 1, 4))
    left_right, up_down = rng.random(2) < 0.5
    return _Warp(
        angle=angle * how.rotation,
        shift=(dx * how.shift, dy * how.shift),
        scale=float(rng.uniform(how.zoom_out, how.zoom_in)),
        shear=shear * how.shear,
        mirrored=(how.flips and bool(left_right), how.flips and bool(up_down)),
    )


def _warped(item: dict[str, Tensor], warp: _Warp, hw: tuple[int, int]) -> dict[str, Tensor]:
    """Resize masks like images, then threshold at 0.5 as in prediction; nearest-pixel resizing would shift them."""
    return {
        name: _warped_planes(value, warp, hw) if isinstance(value, tv_tensors.TVTensor) else value
        for name, value in item.items()
    }


def _warped_planes(planes: Tensor, warp: _Warp, hw: tuple[int, int]) -> Tensor:
    moved = _moved(planes.as_subclass(Tensor).float(), warp, hw)
    warped: Tensor = tv_tensors.Mask(moved >= 0.5) if isinstance(planes, tv_tensors.Mask) else tv_tensors.Image(moved)
    return warped


def _moved(planes: Tensor, warp: _Warp, hw: tuple[int, int]) -> Tensor:
    if not len(planes):
        return planes.new_zeros((0, *hw))
    left_right, up_down = warp.mirrored
    planes = v2.functional.horizontal_flip(planes) if left_right else planes
    planes = v2.functional.vertical_flip(planes) if up_down else planes
    shift = [share * side for share, side in zip(warp.shift, (planes.shape[-1], planes.shape[-2]), strict=True)]
    moved = v2.functional.affine(
        planes, warp.angle, shift, warp.scale, [warp.shear, 0.0], v2.InterpolationMode.BILINEAR
    )
    resized: Tensor = v2.functional.resize(moved, list(hw), antialias=True)
    return resized


_WELL_PICTURE = (320, 320)


def fills_its_picture(truth: Truth) -> bool:
    """Whether the embryo is complete and large in the image, as microscopes frame it."""
    height, width = truth.image.shape
    top, left, bottom, right = truth.box
    whole = top > 0 and left > 0 and bottom < height and right < width
    return whole and (bottom - top) * (right - left) > 0.35 * height * width


def in_a_well(truth: Truth, rng: np.random.Generator) -> Truth:
    """The same embryo as an incubator would show it: smaller, anywhere in a lit well, possibly at its dark edge.

    There are few annotated incubator images, but many from microscopes.
    """
    view = scene.choose_scene(rng, _WELL_PICTURE, "incubator")
    field = scene.paint_field(rng, view)
    lay = _choose_spot(truth, view, field.shape, rng)
    inside = ndimage.binary_fill_holes(truth.masks.any(axis=0) | truth.cells.any(axis=0))
    gray = _as_bytes(truth.image)
    gray = (gray - np.median(gray[~inside])) * np.float32(rng.uniform(0.7, 1.3))
    opaque = ndimage.gaussian_filter(lay.on_canvas(inside), 1.0)
    shade = np.clip(ndimage.gaussian_filter(field, 4.0) / view.level, 0.1, 1.3)
    embryo = (lay.on_canvas(gray) + view.level) * shade
    return replace(
        truth,
        image=np.clip(field * (1 - opaque) + embryo * opaque, 0, 255),
        masks=lay.masks(truth.masks),
        cells=lay.masks(truth.cells),
        visible=None if truth.visible is None else lay.masks(truth.visible),
    )


def _as_bytes(image: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    """Gray values scaled to 0..255, whatever the camera's bit depth."""
    gray = np.asarray(image, np.float32)
    if image.dtype == np.uint8:
        return gray
    low, high = np.percentile(gray, (0.5, 99.5))
    return np.asarray(np.clip((gray - low) / max(high - low, 1e-12), 0, 1) * 255, np.float32)


@dataclass(frozen=True)
class _Lay:
    """How a part of one image is placed on another: ``box`` scaled to ``hw``, its corner at ``corner``."""

    box: Box
    hw: tuple[int, int]
    corner: tuple[int, int]
    canvas: tuple[int, int]

    def on_canvas(self, values: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        top, left, bottom, right = self.box
        rows, columns = (_cut(c, n, room) for c, n, room in zip(self.corner, self.hw, self.canvas, strict=True))
        canvas = np.zeros(self.canvas, np.float32)
        small = geometry.resize(values[top:bottom, left:right].astype(np.float32), self.hw)
        canvas[rows[0], columns[0]] = small[rows[1], columns[1]]
        return canvas

    def masks(self, masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        laid = np.zeros((len(masks), *self.canvas), bool)
        for i, mask in enumerate(masks):
            laid[i] = self.on_canvas(mask) >= 0.5
        return laid


def _choose_spot(truth: Truth, view: scene.Scene, canvas: tuple[int, int], rng: np.random.Generator) -> _Lay:
    top, left, bottom, right = truth.box
    sides = bottom - top, right - left
    radius = view.well_radius * rng.uniform(0.45, 0.9)
    height, width = (max(8, round(2 * radius * side / max(sides))) for side in sides)
    y, x = scene.place(rng, view, 0.85 * radius)
    return _Lay(truth.box, (height, width), (round(y - height / 2), round(x - width / 2)), canvas)


def _cut(start: int, length: int, room: int) -> tuple[slice, slice]:
    """The visible range within ``room`` of something that begins at ``start``, and which part of it is visible."""
    seen = slice(max(start, 0), min(start + length, room))
    return seen, slice(seen.start - start, seen.stop - start)


def _photometric(image: Tensor, how: Augmentation, rng: np.random.Generator) -> Tensor:
    """Randomly change gamma, contrast, brightness, illumination, blur and noise of a normalized image (1, h, w)."""
    strength, inverted = how.photometric, rng.random() < how.invert
    if not strength and not inverted:
        return image
    unit = image * geometry.GRAY_STD + geometry.GRAY_MEAN
    if strength:
        unit = _lit_otherwise(unit.clamp(0, 1), strength, rng)
    if inverted:
        unit = 1 - unit
    return (unit - geometry.GRAY_MEAN) / geometry.GRAY_STD


def _lit_otherwise(unit: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    gamma, contrast, brightness = (float(v) for v in rng.uniform((-0.45, -0.4, -0.15), (0.45, 0.35, 0.15)) * strength)
    unit = (unit ** float(np.exp(gamma)) - 0.5) * (1 + contrast) + 0.5 + brightness
    unit = unit * _illumination(unit.shape[-2:], strength, rng)
    if rng.random() < 0.3:
        unit = v2.functional.gaussian_blur(unit, [5, 5], [strength * float(rng.uniform(0.3, 1.3))])
    if rng.random() < 0.4:
        noise = torch.from_numpy(rng.standard_normal(unit.shape, np.float32))
        unit = unit + noise * strength * float(rng.uniform(0.01, 0.06))
    return unit


def _illumination(hw: Sequence[int], strength: float, rng: np.random.Generator) -> Tensor:
    """A smooth field around 1: a slope and a vignette of random strength."""
    ys, xs = torch.meshgrid(torch.linspace(-1, 1, hw[0]), torch.linspace(-1, 1, hw[1]), indexing="ij")
    dy, dx, vignette = (float(v) * strength for v in rng.uniform((-0.25, -0.25, -0.1), (0.25, 0.25, 0.35)))
    field: Tensor = 1 + dy * ys + dx * xs - vignette * (ys**2 + xs**2)
    return field.clamp_min(0.05)


def preview(
    samples: Sequence[Sample],
    preprocessing: Preprocessing,
    augmentation: Augmentation,
    seed: int,
    count: int,
    classes: Sequence[str] = BLASTOCYST_CLASSES,
) -> npt.NDArray[np.uint8]:
    """Show what the network will see: the first ``count`` samples of training with their masks outlined.

    Parameters
    ----------
    samples
        The samples an epoch visits, repeated accordingly (:func:`napari_embryo.train.loader.visited`).
    preprocessing, augmentation, seed
        As in training: the first epoch is shown in its order, then the second one. Samples of an incomplete last batch,
        which training leaves out, are shown too.
    count
        Number of images.
    classes
        Names of the masks, for their colors; single cells are outlined individually.

    Returns
    -------
    array
        (count, h, w, 3) uint8, RGB.
    """
    if not samples:
        raise ValueError("there is no sample to show; give at least one annotated image")
    items = TrainingSet(samples, preprocessing, augmentation, seed, cells=are_cells(classes))
    epochs = range(1, 1 + -(-count // len(samples)))
    visits = [(epoch, index) for epoch in epochs for index in order(len(samples), seed, epoch)]
    shown = [_outlined(items.item(*visit), classes) for visit in visits[:count]]
    return np.stack(shown) if shown else np.zeros((0, *preprocessing.net_hw, 3), np.uint8)


def _outlined(item: dict[str, Tensor], classes: Sequence[str]) -> npt.NDArray[np.uint8]:
    unit = item["image"][0].numpy() * geometry.GRAY_STD + geometry.GRAY_MEAN
    picture = np.repeat((np.clip(unit, 0, 1) * 255).astype(np.uint8)[..., None], 3, axis=2)
    masks = item.get("cells", item["masks"]).numpy().astype(bool)
    names = [classes[0]] * len(masks) if "cells" in item else classes
    for name, mask in zip(names, masks, strict=True):
        picture[mask & ~ndimage.binary_erosion(mask)] = color_of(name)
    return picture
