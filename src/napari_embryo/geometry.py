"""Map an image's pixels to the network's input and exactly back.

The one resizing routine of training and prediction: Pillow's bilinear filter, which anti-aliases when it shrinks and
whose pixel centers lie at half-integer positions (``align_corners=False``).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from napari_embryo.settings import Fit, Preprocessing

GRAY_MEAN = 0.449
"""Mean of ImageNet's three channel means (0.485, 0.456, 0.406); the padding value before normalization."""
GRAY_STD = 0.226
"""Mean of ImageNet's three channel standard deviations (0.229, 0.224, 0.225)."""
_PERCENTILE_SAMPLES = 65_536

Box = tuple[int, int, int, int]
"""Top, left, bottom, right in whole pixels; bottom and right are exclusive."""


@dataclass(frozen=True)
class Geometry:
    """The mapping from a part of an image to the network's input, and back.

    Parameters
    ----------
    image_hw
        Height and width of the whole image in pixels.
    box
        The part shown to the network.
    scaled_hw
        Size of that part in the network's input.
    pad_tl
        Padding above it and to its left.
    net_hw
        Size of the network's input.
    """

    image_hw: tuple[int, int]
    box: Box
    scaled_hw: tuple[int, int]
    pad_tl: tuple[int, int]
    net_hw: tuple[int, int]

    @property
    def box_hw(self) -> tuple[int, int]:
        top, left, bottom, right = self.box
        return bottom - top, right - left

    @property
    def inner(self) -> tuple[slice, slice]:
        """The part of the network's input that shows the image."""
        (top, left), (height, width) = self.pad_tl, self.scaled_hw
        return slice(top, top + height), slice(left, left + width)

    def valid(self) -> npt.NDArray[np.bool_]:
        """Mask of the network's size: True on the image, False on padding."""
        mask = np.zeros(self.net_hw, bool)
        mask[self.inner] = True
        return mask

    def to_net(self, yx: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
        """Map image coordinates (N, 2) of pixel centers to coordinates in the network's input."""
        return (yx - self.box[:2] + 0.5) * self._scale() - 0.5 + self.pad_tl

    def to_image(self, yx: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
        """The inverse of :meth:`to_net`."""
        return (yx - self.pad_tl + 0.5) / self._scale() - 0.5 + self.box[:2]

    def _scale(self) -> npt.NDArray[np.float64]:
        return np.divide(self.scaled_hw, self.box_hw)

    def image_to_net(self, image: npt.NDArray[np.float32], fill: float = 0.0) -> npt.NDArray[np.float32]:
        """(H, W) image -> (h, w) network input; padding gets ``fill``."""
        top, left, bottom, right = self.box
        net = np.full(self.net_hw, fill, np.float32)
        net[self.inner] = resize(image[top:bottom, left:right], self.scaled_hw)
        return net

    def mask_to_net(self, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """(H, W) mask -> (h, w) mask: True where at least half of a network pixel is covered."""
        return self.image_to_net(mask.astype(np.float32)) >= 0.5

    def net_to_image(self, net: npt.NDArray[np.float32], outside: float = 0.0) -> npt.NDArray[np.float32]:
        """(h, w) probabilities -> (H, W), ``outside`` beyond the box; threshold afterwards, never before."""
        back = resize(net[self.inner], self.box_hw)
        if self.box == (0, 0, *self.image_hw):
            return back
        whole = np.full(self.image_hw, outside, np.float32)
        top, left, bottom, right = self.box
        whole[top:bottom, left:right] = back
        return whole

    def grid_to_image(self, grid: npt.NDArray[np.float32], outside: float = 0.0) -> npt.NDArray[np.float32]:
        """A module's map (any grid over the network's input) -> (H, W)."""
        return self.net_to_image(resize(grid, self.net_hw), outside)


def plan(
    image_hw: tuple[int, int], net_hw: tuple[int, int], fit: Fit = "letterbox", box: Box | None = None
) -> Geometry:
    """Plan how an image, or the part of it in ``box``, is placed in a network's input.

    ``letterbox``: the largest size of the same aspect ratio that fits, padded on both sides (odd remainders go to the
    right and bottom). ``stretch``: the plain resizing of the ResA-Net paper.
    """
    box = _inside(box or (0, 0, *image_hw), image_hw)
    box_hw = box[2] - box[0], box[3] - box[1]
    scaled = net_hw if fit == "stretch" else _letterbox(box_hw, net_hw)
    pad = (net_hw[0] - scaled[0]) // 2, (net_hw[1] - scaled[1]) // 2
    return Geometry(image_hw, box, scaled, pad, net_hw)


def _letterbox(hw: tuple[int, int], net_hw: tuple[int, int]) -> tuple[int, int]:
    factor = min(net_hw[0] / hw[0], net_hw[1] / hw[1])
    return max(1, min(net_hw[0], round(hw[0] * factor))), max(1, min(net_hw[1], round(hw[1] * factor)))


def _inside(box: Box, hw: tuple[int, int]) -> Box:
    top, left, bottom, right = box
    clipped = max(0, top), max(0, left), min(hw[0], bottom), min(hw[1], right)
    if clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        raise ValueError(f"the box {box} (top, left, bottom, right) lies outside the image of {hw[0]} x {hw[1]} pixels")
    return clipped


def grow(box: Box, share: float, image_hw: tuple[int, int]) -> Box:
    """``box`` enlarged by ``share`` of its size on every side, clipped to the image."""
    dy, dx = round((box[2] - box[0]) * share), round((box[3] - box[1]) * share)
    return _inside((box[0] - dy, box[1] - dx, box[2] + dy, box[3] + dx), image_hw)


EMBRYO_MARGIN = 0.12
"""Margin added around the embryo for a closer look, as a share of its size on every side."""


def closer_look(box: Box, image_hw: tuple[int, int], below: float) -> Box | None:
    """The part of an image for a closer look: the embryo's box with a margin; None if not worthwhile.

    It is worthwhile if the part covers less than the share ``below`` of the image's area.
    """
    part = grow(box, EMBRYO_MARGIN, image_hw)
    share = (part[2] - part[0]) * (part[3] - part[1]) / (image_hw[0] * image_hw[1])
    return part if share < below else None


def resize(image: npt.NDArray[np.float32], hw: tuple[int, int]) -> npt.NDArray[np.float32]:
    """(H, W) -> ``hw``: bilinear, anti-aliased when it shrinks."""
    if image.shape == hw:
        return np.asarray(image, np.float32)
    picture = Image.fromarray(np.ascontiguousarray(image, np.float32))
    return np.asarray(picture.resize((hw[1], hw[0]), Image.Resampling.BILINEAR))


def normalize(image: npt.NDArray[Any], preprocessing: Preprocessing) -> npt.NDArray[np.float32]:
    """Normalize gray values of any dtype so that ImageNet's mean is zero and its standard deviation one.

    First, the two percentiles of the settings become 0 and 1, so that 8-bit, 12-in-16-bit and float images, bright and
    dim, look alike to the network (docs/decisions.md, "Percentile normalization"). A flat image becomes all zeros.
    """
    gray = np.asarray(image, np.float32)
    if not np.isfinite(gray).all():
        raise ValueError("the image has NaN or infinite pixels; replace them before segmenting")
    step = max(1, int(np.sqrt(gray.size / _PERCENTILE_SAMPLES)))
    limits = (preprocessing.low_percentile, preprocessing.high_percentile)
    low, high = np.percentile(gray[::step, ::step], limits)
    if high <= low:
        return np.zeros(gray.shape, np.float32)
    unit: npt.NDArray[np.float32] = np.clip((gray - np.float32(low)) / np.float32(high - low), 0.0, 1.0)
    unit -= np.float32(GRAY_MEAN)
    unit /= np.float32(GRAY_STD)
    return unit


def network_input(plane: npt.NDArray[Any], plan: Geometry, preprocessing: Preprocessing) -> npt.NDArray[np.float32]:
    """(1, h, w): the part of the image in the plan's box, normalized by its own gray values, padded with zeros."""
    top, left, bottom, right = plan.box
    image = np.zeros(plan.image_hw, np.float32)
    image[top:bottom, left:right] = normalize(plane[top:bottom, left:right], preprocessing)
    return plan.image_to_net(image)[None]


def hw_of(plane: npt.NDArray[Any]) -> tuple[int, int]:
    if plane.ndim != 2:
        raise ValueError(f"an image plane has two dimensions (Y, X), but an array of shape {plane.shape} was given")
    return int(plane.shape[0]), int(plane.shape[1])
