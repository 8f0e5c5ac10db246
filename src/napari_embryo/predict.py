"""Image -> network -> back to the image's own pixels."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

from napari_embryo import geometry, models
from napari_embryo.geometry import Box, Geometry, network_input
from napari_embryo.image import Segmentation
from napari_embryo.models.checkpoint import Checkpoint
from napari_embryo.settings import Device, Precision, SegmentSettings

Plane = npt.NDArray[Any]

EMBRYO_MARGIN = 0.12
"""Added around the embryo found in the first look, as a share of its size on every side."""
LOOK_AGAIN_BELOW = 0.15
"""The second look is taken when the embryo with its margin fills less than this share of the picture's area: about the
smallest that the bundled network was trained on (an incubator's embryo, zoomed out). Above it a second look brought
nothing on the validation embryos."""


VIEWS = ((0, False), (0, True), (2, False), (2, True), (1, False), (1, True), (3, False), (3, True))
"""Quarter turns after mirroring or not, in the order in which they are added."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the network said of one picture.

    ``plane`` is the picture, ``outputs`` are the network's own (no batch axis, on the CPU), ``geometry`` leads from
    them to the picture.
    """

    plane: Plane
    segmentation: Segmentation
    outputs: dict[str, Tensor]
    geometry: Geometry
    network_input: Tensor


class Predictor:
    """A network ready on a device.

    Parameters
    ----------
    checkpoint
        The network and how it wants its images.
    settings
        Device, precision, threshold, batch size.

    Attributes
    ----------
    notes
        What a user should know: a smaller batch, a fall-back to the processor.
    """

    def __init__(self, checkpoint: Checkpoint, settings: SegmentSettings) -> None:
        self.info, self.sha256, self.settings = checkpoint.info, checkpoint.sha256, settings
        self.device = choose_device(settings.device)
        self.batch_size = settings.batch_size
        self.notes: list[str] = []
        self.model = checkpoint.model.eval().to(self.device).to(memory_format=torch.channels_last)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.info.model.classes

    def predict(self, planes: Iterable[Plane]) -> Iterator[Prediction]:
        """Predict (H, W) pictures one batch at a time, in order; memory holds one batch."""
        source = iter(planes)
        while batch := list(islice(source, self.batch_size)):
            yield from self._with_less_memory(batch)

    def _with_less_memory(self, planes: Sequence[Plane]) -> Iterator[Prediction]:
        """One batch; after an out-of-memory in halves, then on the processor."""
        pending = list(planes)
        while pending:
            try:
                done = self._two_looks(pending[: self.batch_size])
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                self._give_way(error)
                continue
            del pending[: len(done)]
            yield from done

    def _give_way(self, error: RuntimeError) -> None:
        if self.batch_size > 1:
            self.batch_size //= 2
            self.notes.append(f"out of memory on {self.device}: going on with {self.batch_size} pictures at a time")
        elif self.device.type != "cpu":
            self.notes.append(
                f"out of memory on {self.device} even for one picture: going on with the processor (slower)"
            )
            self.device = torch.device("cpu")
            self.model.to(self.device)
        else:
            raise MemoryError("out of memory for a single picture on the processor; close other programs") from error
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _two_looks(self, planes: Sequence[Plane]) -> list[Prediction]:
        """Whole pictures first; where the embryo turns out small, once more on a crop around it."""
        found = self._look(planes, [None] * len(planes))
        # One part alone does not tell where the embryo ends.
        boxes = [embryo_box(p.segmentation) if len(self.classes) > 1 else None for p in found]
        small = [i for i, box in enumerate(boxes) if box is not None]
        if small:
            again = self._look([planes[i] for i in small], [boxes[i] for i in small])
            for i, closer in zip(small, again, strict=True):
                if closer.segmentation.masks.any():
                    found[i] = closer
        return found

    def _look(self, planes: Sequence[Plane], boxes: Sequence[Box | None]) -> list[Prediction]:
        pre = self.info.preprocessing
        plans = [geometry.plan(_hw(p), pre.net_hw, pre.fit, box) for p, box in zip(planes, boxes, strict=True)]
        inputs = torch.from_numpy(np.stack([network_input(p, g, pre) for p, g in zip(planes, plans, strict=True)]))
        outputs = self._forward(inputs)
        if self.settings.views > 1:
            outputs["logits"] = self._averaged(inputs, outputs["logits"])
        return [self._prediction(planes[i], outputs, i, plan, inputs) for i, plan in enumerate(plans)]

    def _forward(self, inputs: Tensor) -> dict[str, Tensor]:
        with torch.inference_mode(), self._autocast():
            outputs: dict[str, Tensor] = self.model(
                inputs.to(self.device).contiguous(memory_format=torch.channels_last)
            )
        return {name: tensor.float().cpu() for name, tensor in outputs.items()}

    def _averaged(self, inputs: Tensor, logits: Tensor) -> Tensor:
        """The mean probability over mirrored and turned views, as logits again."""
        total = torch.sigmoid(logits)
        for turns, mirrored in VIEWS[1 : self.settings.views]:
            seen = self._forward(torch.rot90(inputs.flip(-1) if mirrored else inputs, turns, (-2, -1)))["logits"]
            back = torch.rot90(seen, -turns, (-2, -1))
            total += torch.sigmoid(back.flip(-1) if mirrored else back)
        return torch.logit(total / self.settings.views, eps=1e-6)

    def _autocast(self) -> AbstractContextManager[Any]:
        enabled = use_bfloat16(self.settings.precision, self.device)
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    def _prediction(
        self, plane: Plane, outputs: dict[str, Tensor], i: int, plan: Geometry, inputs: Tensor
    ) -> Prediction:
        one = {name: tensor[i] for name, tensor in outputs.items()}
        decode = models.DECODERS[self.info.model.family]
        segmentation = decode(one["logits"], plan, self.classes, self.settings.threshold)
        if self.settings.one_embryo:
            segmentation = replace(segmentation, masks=largest_embryo(segmentation.masks))
        return Prediction(plane, segmentation, one, plan, inputs[i : i + 1])


def embryo_box(segmentation: Segmentation) -> Box | None:
    """Box around the largest connected thing found, with a margin; None where a closer look is not worth it."""
    hw = _hw(segmentation.masks[0])
    parts, count = ndimage.label(segmentation.masks.any(axis=0))
    if count == 0:
        return None
    rows, columns = ndimage.find_objects(parts)[_largest(parts)]
    box = geometry.grow((rows.start, columns.start, rows.stop, columns.stop), EMBRYO_MARGIN, hw)
    share = (box[2] - box[0]) * (box[3] - box[1]) / (hw[0] * hw[1])
    return box if share < LOOK_AGAIN_BELOW else None


def _largest(parts: npt.NDArray[np.integer[Any]]) -> int:
    """Index (label - 1) of the part with most pixels."""
    return int(np.argmax(np.bincount(parts.ravel())[1:]))


def largest_embryo(masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """(C, H, W) masks without the parts of a neighbour or of dirt.

    Parts that hang together, over all classes, are one thing. Kept are the largest thing and what has its middle within
    the ellipse that fills the largest thing's box, such as an inner cell mass that floats in a broken ring (our
    decision).
    """
    parts, count = ndimage.label(masks.any(axis=0))
    if count < 2:
        return masks
    boxes = ndimage.find_objects(parts)
    main = boxes[_largest(parts)]
    belongs: npt.NDArray[np.bool_] = np.array([False, *(_lies_in(box, main) for box in boxes)])[parts]
    return masks & belongs


def _lies_in(box: tuple[slice, slice], around: tuple[slice, slice]) -> bool:
    """Whether the middle of a box lies in the ellipse that fills another."""
    offsets = [(s.start + s.stop - a.start - a.stop) / (a.stop - a.start) for s, a in zip(box, around, strict=True)]
    return bool(np.hypot(*offsets) <= 1)


def _hw(plane: Plane) -> tuple[int, int]:
    if plane.ndim != 2:
        raise ValueError(f"a picture has two dimensions (Y, X), but an array of shape {plane.shape} came")
    return int(plane.shape[0]), int(plane.shape[1])


def is_out_of_memory(error: RuntimeError) -> bool:
    said = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in said or "can't allocate memory" in said


def choose_device(wanted: Device) -> torch.device:
    """The device to compute on.

    Raises
    ------
    ValueError
        When the one asked for is not usable here; says why.
    """
    if wanted == "auto":
        return torch.device(next(name for name, reason in devices().items() if reason is None))
    reason = devices()[wanted]
    if reason is not None:
        raise ValueError(f"device {wanted!r} cannot be used: {reason}; use 'auto' or 'cpu'")
    return torch.device(wanted)


def devices() -> dict[str, str | None]:
    """Every kind of device, the fastest first, with the reason why it cannot be used, or None."""
    return {"cuda": _no_cuda(), "mps": _no_mps(), "cpu": None}


def _no_cuda() -> str | None:
    if torch.version.cuda is None and torch.version.hip is None:
        return f"torch {torch.__version__} is built without CUDA; reinstall it from pytorch.org with CUDA"
    if not torch.cuda.is_available():
        return "no NVIDIA graphics card with a working driver was found"
    return None


def _no_mps() -> str | None:
    return None if torch.backends.mps.is_available() else "no Apple graphics processor was found"


def use_bfloat16(precision: Precision, device: torch.device) -> bool:
    """Whether to compute in bfloat16; ``auto`` only where the processor does so natively."""
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())
