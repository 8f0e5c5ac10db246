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
from napari_embryo.models.vqamodal import views
from napari_embryo.settings import Device, Precision, SegmentSettings

Plane = npt.NDArray[Any]

VIEWS = ((0, False), (0, True), (2, False), (2, True), (1, False), (1, True), (3, False), (3, True))
"""Quarter turns after mirroring or not, in the order in which they are added."""


_AVERAGED = ("logits", "ratio")

_PERHAPS = 0.2
"""Least score of a cell that the closer look takes in (our decision)."""
_NEAR = 0.25
"""Cells whose gap is less than twice this share of a cell's diameter belong to one embryo (our decision)."""


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
    quantifier
        A second network that tells the ratio of what this one draws.
    role
        What it is beside another one, said before its notes.
    least_score
        Of single cells: the least score of one that is shown; the family's own where nothing is said.

    Attributes
    ----------
    notes
        What a user should know: a smaller batch, a fall-back to the processor; also of the quantifier, in the order in
        which it happened.

    Raises
    ------
    ValueError
        When the device cannot be used, or does not compute in the precision.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        settings: SegmentSettings,
        quantifier: "Predictor | None" = None,
        role: str = "",
        least_score: float | None = None,
    ) -> None:
        self.info, self.sha256, self.settings = checkpoint.info, checkpoint.sha256, settings
        self.quantifier, self.role = quantifier, role
        self._how = {} if least_score is None else {"least_score": least_score}
        self.device = choose_device(settings.device)
        check_precision(settings.precision, self.device)
        self.batch_size = settings.batch_size
        self.notes: list[str] = [] if quantifier is None else quantifier.notes
        self.model = checkpoint.model.eval().to(self.device).to(memory_format=torch.channels_last)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.info.model.classes

    def predict(self, planes: Iterable[Plane]) -> Iterator[Prediction]:
        """Predict (H, W) pictures one batch at a time, in order; memory holds one batch."""
        source = iter(planes)
        while batch := list(islice(source, self.batch_size)):
            drawn = self._with_less_memory(batch)
            yield from drawn if self.quantifier is None else self._quantified(batch, drawn, self.quantifier)

    def _quantified(
        self, planes: Sequence[Plane], drawn: Iterable[Prediction], quantifier: "Predictor"
    ) -> Iterator[Prediction]:
        """With the ratio as the second network tells it."""
        for ours, theirs in zip(drawn, quantifier.predict(planes), strict=True):
            numbers = {**ours.segmentation.numbers, **_ratio_of(theirs)}
            yield replace(ours, segmentation=replace(ours.segmentation, numbers=numbers))

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
            self._note(f"out of memory on {self.device}: going on with {self.batch_size} pictures at a time")
        elif self.device.type != "cpu":
            self._note(f"out of memory on {self.device} even for one picture: going on with the processor (slower)")
            self.device = torch.device("cpu")
            self.model.to(self.device)
        else:
            raise MemoryError("out of memory for a single picture on the processor; close other programs") from error
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _note(self, text: str) -> None:
        self.notes.append(f"{self.role}: {text}" if self.role else text)

    def _two_looks(self, planes: Sequence[Plane]) -> list[Prediction]:
        """Whole pictures first; where the embryo turns out small, once more on a crop around it."""
        found = self._look(planes, [None] * len(planes))
        below, everything = self.info.preprocessing.look_again_below, not self.settings.one_embryo
        if below <= 0:
            return found
        boxes = [embryo_box(self._perhaps(p), below, everything) if self._tells_the_embryo(p) else None for p in found]
        small = [i for i, box in enumerate(boxes) if box is not None]
        if small:
            again = self._look([planes[i] for i in small], [boxes[i] for i in small])
            for i, closer in zip(small, again, strict=True):
                if closer.segmentation.masks.any():
                    found[i] = closer
        return found

    def _tells_the_embryo(self, prediction: Prediction) -> bool:
        """One part alone does not tell where the embryo ends; its cells do."""
        return len(self.classes) > 1 or prediction.segmentation.scores is not None

    def _perhaps(self, prediction: Prediction) -> Segmentation:
        """Also cells that it is hardly sure of, whatever is shown: a closer look cuts off what it leaves out."""
        if prediction.segmentation.scores is None:
            return prediction.segmentation
        decode = models.DECODERS[self.info.model.family]
        return decode(
            prediction.outputs, prediction.geometry, self.classes, self.settings.threshold, least_score=_PERHAPS
        )

    def _look(self, planes: Sequence[Plane], boxes: Sequence[Box | None]) -> list[Prediction]:
        pre = self.info.preprocessing
        plans = [geometry.plan(_hw(p), pre.net_hw, pre.fit, box) for p, box in zip(planes, boxes, strict=True)]
        inputs = torch.from_numpy(np.stack([network_input(p, g, pre) for p, g in zip(planes, plans, strict=True)]))
        outputs = self._forward(inputs)
        if self.settings.views > 1:
            outputs |= self._merged(inputs, outputs) if "cell_logits" in outputs else self._averaged(inputs, outputs)
        return [self._prediction(planes[i], outputs, i, plan, inputs) for i, plan in enumerate(plans)]

    def _forward(self, inputs: Tensor) -> dict[str, Tensor]:
        with torch.inference_mode(), self._autocast():
            outputs: dict[str, Tensor] = self.model(
                inputs.to(self.device).contiguous(memory_format=torch.channels_last)
            )
        return {name: tensor.float().cpu() for name, tensor in outputs.items()}

    def _merged(self, inputs: Tensor, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The single cells of mirrored and turned views."""
        seen = [outputs, *(self._forward(viewed(inputs, *view)) for view in VIEWS[1 : self.settings.views])]
        hw, described = (int(inputs.shape[-2]), int(inputs.shape[-1])), self.info.model
        pictures = [
            views.merged(
                [views.turned_back(views.of_picture(o, i), *v, hw) for o, v in zip(seen, VIEWS, strict=False)],
                hw,
                getattr(described, "mask_nms", 1.0),
            )
            for i in range(len(inputs))
        ]
        return views.stacked(pictures, outputs["scores"].shape[1])

    def _averaged(self, inputs: Tensor, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The mean probability, and ratio, over mirrored and turned views, as logits again."""
        totals = {name: torch.sigmoid(outputs[name]) for name in _AVERAGED if name in outputs}
        for turns, mirrored in VIEWS[1 : self.settings.views]:
            seen = self._forward(viewed(inputs, turns, mirrored))
            back = torch.rot90(seen["logits"], -turns, (-2, -1))
            seen["logits"] = back.flip(-1) if mirrored else back
            totals = {name: total + torch.sigmoid(seen[name]) for name, total in totals.items()}
        return {name: torch.logit(total / self.settings.views, eps=1e-6) for name, total in totals.items()}

    def _autocast(self) -> AbstractContextManager[Any]:
        half = half_type(self.settings.precision, self.device)
        return torch.autocast(self.device.type, half or torch.bfloat16, enabled=half is not None)

    def _prediction(
        self, plane: Plane, outputs: dict[str, Tensor], i: int, plan: Geometry, inputs: Tensor
    ) -> Prediction:
        one = {name: tensor[i] for name, tensor in outputs.items()}
        decode = models.DECODERS[self.info.model.family]
        segmentation = decode(one, plan, self.classes, self.settings.threshold, **self._how)
        if self.settings.one_embryo:
            segmentation = one_embryo(segmentation)
        return Prediction(plane, segmentation, one, plan, inputs[i : i + 1])


def viewed(inputs: Tensor, turns: int, mirrored: bool) -> Tensor:
    """(..., h, w) mirrored left-right or not, then turned by so many quarters."""
    return torch.rot90(inputs.flip(-1) if mirrored else inputs, turns, (-2, -1))


def _ratio_of(prediction: Prediction) -> dict[str, float]:
    name = "ratio_regressed"
    return {name: prediction.segmentation.numbers[name]}


def embryo_box(segmentation: Segmentation, below: float, everything: bool = False) -> Box | None:
    """Box around the largest connected thing, or group of cells, with a margin; None where it is not worth a look.

    Around all that was found where ``everything`` is kept.
    """
    if below <= 0:
        return None
    inside = np.asarray(segmentation.masks.any(axis=0)) if everything else _largest_group(segmentation)
    if not inside.any():
        return None
    rows, columns = ndimage.find_objects(inside.astype(np.uint8))[0]
    box = (rows.start, columns.start, rows.stop, columns.stop)
    return geometry.closer_look(box, _hw(inside), below)


def _largest_group(segmentation: Segmentation) -> npt.NDArray[np.bool_]:
    """(H, W): of all that was found, the most that hangs together; single cells also do over a narrow gap."""
    found: npt.NDArray[np.bool_] = np.asarray(segmentation.masks.any(axis=0))
    if not found.any():
        return found
    groups = np.where(found, ndimage.label(_joined(segmentation, found))[0], 0)
    largest: npt.NDArray[np.bool_] = np.equal(groups, _largest(groups) + 1)
    return largest


def _joined(segmentation: Segmentation, found: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """What was found; single cells with the narrow gaps between them."""
    if segmentation.scores is None or ndimage.label(found)[1] < 2:
        return found
    area = float(np.median(segmentation.masks.sum((1, 2))))
    near: npt.NDArray[np.bool_] = ndimage.distance_transform_edt(~found) <= _NEAR * np.sqrt(4 * area / np.pi)
    return near


def _largest(parts: npt.NDArray[np.integer[Any]]) -> int:
    """Index (label - 1) of the part with most pixels."""
    return int(np.argmax(np.bincount(parts.ravel())[1:]))


def one_embryo(segmentation: Segmentation) -> Segmentation:
    """Without a neighbour or dirt: parts as :func:`largest_embryo`, single cells whole or not at all.

    Of cells, the group with most pixels is kept, and the others move up in number.
    """
    if segmentation.scores is None:
        return replace(segmentation, masks=largest_embryo(segmentation.masks))
    largest = _largest_group(segmentation)
    kept = [2 * int((mask & largest).sum()) > int(mask.sum()) for mask in segmentation.masks]
    return replace(
        segmentation,
        classes=segmentation.classes[: sum(kept)],
        masks=segmentation.masks[kept],
        probabilities=segmentation.probabilities[kept],
        scores=segmentation.scores[kept],
    )


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


def check_precision(precision: Precision, device: torch.device) -> None:
    """Refuse float16 where it is not computed.

    Raises
    ------
    ValueError
        On a processor.
    """
    if precision == "float16" and device.type == "cpu":
        raise ValueError(
            "precision: 'float16' came, but a processor does not compute in it; use 'bfloat16' or 'float32', or a "
            "graphics card"
        )


def half_type(precision: Precision, device: torch.device) -> torch.dtype | None:
    """The short type of mixed precision; None: float32 throughout, as on the processor that replaces a full card."""
    if precision == "float16":
        return None if device.type == "cpu" else torch.float16
    return torch.bfloat16 if use_bfloat16(precision, device) else None


def use_bfloat16(precision: Precision, device: torch.device) -> bool:
    """Whether to compute in bfloat16; ``auto`` only where the processor does so natively."""
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())
