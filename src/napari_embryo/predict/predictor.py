"""Image -> network -> back to the image's own pixels."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_embryo import geometry, models
from napari_embryo.families import FAMILIES, Family
from napari_embryo.geometry import Box, Geometry, hw_of, network_input
from napari_embryo.image import Cells, Finding, Parts
from napari_embryo.models.checkpoint import Checkpoint
from napari_embryo.models.network import View
from napari_embryo.notes import Note
from napari_embryo.predict.device import check_precision, choose_device, half_type, is_out_of_memory
from napari_embryo.predict.largest import embryo_box, one_embryo
from napari_embryo.predict.views import VIEWS, viewed
from napari_embryo.settings import SegmentSettings

Plane = npt.NDArray[Any]

_PERHAPS = 0.2
"""Lowest score of a cell that a closer look includes (docs/decisions.md, "Score of a shown cell")."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the network predicted for one image plane.

    ``plane`` is the image plane, ``outputs`` are those of the network (no batch axis, on the CPU), and ``geometry``
    maps them to the plane.
    """

    plane: Plane
    finding: Finding
    outputs: dict[str, Tensor]
    geometry: Geometry
    network_input: Tensor


class Predictor:
    """A network ready on a device.

    Parameters
    ----------
    checkpoint
        The network and how its images are prepared.
    settings
        Device, precision, threshold, batch size.
    quantifier
        A second network that estimates the ratio.
    role
        Prefix of its notes, if it works together with another network.
    least_score
        Lowest score of a cell that is shown; that of the family by default.

    Attributes
    ----------
    notes
        Messages for the user, such as a smaller batch or a fallback to the processor, including those of the
        quantifier, in order of time.

    Raises
    ------
    ValueError
        If the network draws no masks, or the device is unavailable or does not support the precision.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        settings: SegmentSettings,
        quantifier: "Predictor | None" = None,
        role: str = "",
        least_score: float | None = None,
    ) -> None:
        self.info, self.sha256 = checkpoint.info, checkpoint.sha256
        family = checkpoint.info.model.family
        self.settings = settings.model_copy(update={"family": family})
        network = models.NETWORKS[family]
        if network.decode is None:
            raise ValueError(f"a network of the family {family} draws no masks; it cannot be used for segmentation")
        self._decode, self._merge_views = network.decode, network.merge_views
        self.quantifier, self.role = quantifier, role
        self._how = {} if least_score is None else {"least_score": least_score}
        self.device = choose_device(settings.device)
        check_precision(settings.precision, self.device)
        self.batch_size = settings.batch_size
        self.notes: list[Note] = [] if quantifier is None else quantifier.notes
        self.model = checkpoint.model.eval().to(self.device).to(memory_format=torch.channels_last)

    @property
    def family(self) -> Family:
        """The family of the checkpoint, whatever the settings say."""
        return FAMILIES[self.info.model.family]

    @property
    def classes(self) -> tuple[str, ...]:
        return self.info.model.classes

    def predict(self, planes: Iterable[Plane]) -> Iterator[Prediction]:
        """Predict (H, W) planes one batch at a time, in order; only one batch is kept in memory."""
        source = iter(planes)
        while batch := list(islice(source, self.batch_size)):
            drawn = self._with_less_memory(batch)
            yield from drawn if self.quantifier is None else self._quantified(batch, drawn, self.quantifier)

    def _quantified(
        self, planes: Sequence[Plane], drawn: Iterable[Prediction], quantifier: "Predictor"
    ) -> Iterator[Prediction]:
        """Replace the ratio by that of the second network."""
        for ours, theirs in zip(drawn, quantifier.predict(planes), strict=True):
            yield replace(ours, finding=_with_numbers(ours.finding, _ratio_of(theirs.finding)))

    def _with_less_memory(self, planes: Sequence[Plane]) -> Iterator[Prediction]:
        """Predict one batch; if memory runs out in halves, then on the processor."""
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
            self._note(f"out of memory on {self.device}: continuing with batches of {self.batch_size}")
        elif self.device.type != "cpu":
            self._note(f"out of memory on {self.device} even for one image: continuing on the processor (slower)")
            self.device = torch.device("cpu")
            self.model.to(self.device)
        else:
            raise MemoryError("out of memory for a single image on the processor; close other programs") from error
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _note(self, text: str) -> None:
        self.notes.append(Note("warning", f"{self.role}: {text}" if self.role else text))

    def _two_looks(self, planes: Sequence[Plane]) -> list[Prediction]:
        """Predict whole planes first, then again on a crop around small embryos."""
        found = self._look(planes, [None] * len(planes))
        below, everything = self.info.preprocessing.look_again_below, not self.settings.one_embryo
        if below <= 0:
            return found
        boxes = [embryo_box(self._perhaps(p), below, everything) if self._tells_the_embryo(p) else None for p in found]
        small = [i for i, box in enumerate(boxes) if box is not None]
        if small:
            again = self._look([planes[i] for i in small], [boxes[i] for i in small])
            for i, closer in zip(small, again, strict=True):
                if closer.finding.masks.any():
                    found[i] = closer
        return found

    def _tells_the_embryo(self, prediction: Prediction) -> bool:
        """Whether the embryo's extent is known: one part alone does not show it, but cells do."""
        return len(self.classes) > 1 or isinstance(prediction.finding, Cells)

    def _perhaps(self, prediction: Prediction) -> Finding:
        """Box for a closer look, including uncertain cells, since everything outside is cut off."""
        if not isinstance(prediction.finding, Cells):
            return prediction.finding
        return self._decode(
            prediction.outputs, prediction.geometry, self.classes, self.settings.threshold, least_score=_PERHAPS
        )

    def _look(self, planes: Sequence[Plane], boxes: Sequence[Box | None]) -> list[Prediction]:
        pre = self.info.preprocessing
        plans = [geometry.plan(hw_of(p), pre.net_hw, pre.fit, box) for p, box in zip(planes, boxes, strict=True)]
        inputs = torch.from_numpy(np.stack([network_input(p, g, pre) for p, g in zip(planes, plans, strict=True)]))
        outputs = self._forward(inputs)
        if self.settings.views > 1:
            hw = int(inputs.shape[-2]), int(inputs.shape[-1])
            outputs |= self._merge_views(self._views(inputs, outputs), hw, self.info.model)
        return [self._prediction(planes[i], outputs, i, plan, inputs) for i, plan in enumerate(plans)]

    def _forward(self, inputs: Tensor) -> dict[str, Tensor]:
        with torch.inference_mode(), self._autocast():
            outputs: dict[str, Tensor] = self.model(
                inputs.to(self.device).contiguous(memory_format=torch.channels_last)
            )
        return {name: tensor.float().cpu() for name, tensor in outputs.items()}

    def _views(self, inputs: Tensor, unturned: dict[str, Tensor]) -> Iterator[View]:
        """The outputs for every view, one at a time."""
        yield View(unturned, 0, mirrored=False)
        for turns, mirrored in VIEWS[1 : self.settings.views]:
            yield View(self._forward(viewed(inputs, turns, mirrored)), turns, mirrored)

    def _autocast(self) -> AbstractContextManager[Any]:
        half = half_type(self.settings.precision, self.device)
        return torch.autocast(self.device.type, half or torch.bfloat16, enabled=half is not None)

    def _prediction(
        self, plane: Plane, outputs: dict[str, Tensor], i: int, plan: Geometry, inputs: Tensor
    ) -> Prediction:
        one = {name: tensor[i] for name, tensor in outputs.items()}
        finding = self._decode(one, plan, self.classes, self.settings.threshold, **self._how)
        if self.settings.one_embryo:
            finding = one_embryo(finding)
        return Prediction(plane, finding, one, plan, inputs[i : i + 1])


def _ratio_of(finding: Finding) -> dict[str, float]:
    name = "ratio_regressed"
    return {name: finding.numbers[name]} if isinstance(finding, Parts) else {}


def _with_numbers(finding: Finding, numbers: Mapping[str, float]) -> Finding:
    return replace(finding, numbers={**finding.numbers, **numbers}) if isinstance(finding, Parts) else finding
