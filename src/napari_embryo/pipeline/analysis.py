"""Process the planes of one or many images as one stream: read, segment, explain, measure."""

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from napari_embryo import explain, measure
from napari_embryo.image import EmbryoImage, Progress
from napari_embryo.notes import Failure
from napari_embryo.predict import Prediction, Predictor
from napari_embryo.results import Index, PlaneResult, picture_said

SMALLEST = 16
"""Smallest height and width in pixels of an image of an embryo."""


def analyze(
    image: EmbryoImage, predictor: Predictor, indices: Sequence[Index] | None = None
) -> Generator[Progress, None, None]:
    """Segment, explain and measure the planes of one image in order.

    Each :class:`Progress` carries a :class:`PlaneResult`, or a :class:`Failure` for a plane that could not be read.
    Stop iterating to cancel; nothing is computed twice and nothing is kept.

    Parameters
    ----------
    image
        Image with any axes; every index of the leading axes is a plane.
    predictor
        From :func:`load_predictor`.
    indices
        Which planes; all by default.
    """
    wanted = list(np.ndindex(image.shape[:-2])) if indices is None else list(indices)
    for step in analyze_all([(image, wanted)], predictor):
        yield step.progress


@dataclass(frozen=True, eq=False)
class Step:
    """One plane of one of many images."""

    image: EmbryoImage
    progress: Progress


@dataclass(frozen=True, eq=False)
class _Place:
    """Position of a plane: the ``nth`` of those requested of an image, and of all."""

    image: EmbryoImage
    wanted: Sequence[Index]
    nth: int
    of_all: int

    def step(self, item: PlaneResult | Failure) -> Step:
        total = len(self.wanted)
        said = picture_said(self.image, self.wanted[self.nth], total)
        return Step(self.image, Progress(self.nth + 1, total, said, item))


def analyze_all(images: Iterable[tuple[EmbryoImage, Sequence[Index]]], predictor: Predictor) -> Iterator[Step]:
    """The planes of all images as one stream, so that small images share batches; images are opened when needed.

    The next plane is read in a separate thread while one is computed, so that a slow disk or network is not waited for.
    A graphics card works one plane ahead as well, while the previous one is measured and written. On the processor this
    would be slower, because the network's threads would wait for each other.
    """
    reader = _Reader(images)
    with ThreadPoolExecutor(1) as reading, ThreadPoolExecutor(1) as computing:
        predictions = predictor.predict(_one_ahead(reader.planes(), reading))
        ahead = predictions if predictor.device.type == "cpu" else _one_ahead(predictions, computing)
        for place, found in _in_order(ahead, reader):
            yield place.step(found if isinstance(found, Failure) else _result(place, found, predictor))


T = TypeVar("T")


def _one_ahead(items: Iterator[T], pool: Executor) -> Iterator[T]:
    following = pool.submit(next, items, None)
    while (item := following.result()) is not None:
        following = pool.submit(next, items, None)
        yield item


class _Reader:
    """Reads planes one at a time; remembers which could be read and which not."""

    def __init__(self, images: Iterable[tuple[EmbryoImage, Sequence[Index]]]) -> None:
        self.images = images
        self.came: deque[_Place] = deque()
        self.failed: deque[tuple[_Place, Failure]] = deque()

    def planes(self) -> Iterator[npt.NDArray[Any]]:
        for place in self._places():
            index = place.wanted[place.nth]
            try:
                plane = _read_plane(place.image, index)
            except (OSError, ValueError) as error:
                self.failed.append((place, Failure(place.image.name, index, str(error))))
            else:
                self.came.append(place)
                yield plane

    def _places(self) -> Iterator[_Place]:
        count = 0
        for image, wanted in self.images:
            for nth in range(len(wanted)):
                yield _Place(image, wanted, nth, count)
                count += 1


def _in_order(predictions: Iterator[Prediction], reader: _Reader) -> Iterator[tuple[_Place, Prediction | Failure]]:
    """Predictions and failures by index."""
    for prediction in predictions:
        place = reader.came.popleft()
        while reader.failed and reader.failed[0][0].of_all < place.of_all:
            yield reader.failed.popleft()
        yield place, prediction
    yield from reader.failed


def _read_plane(image: EmbryoImage, index: Index) -> npt.NDArray[Any]:
    plane = np.asarray(image.data[index])
    where = f"{image.name} at {index}" if index else image.name
    if min(plane.shape) < SMALLEST:
        raise ValueError(
            f"{where}: the image has {plane.shape[0]} x {plane.shape[1]} pixels, but needs at least {SMALLEST} x "
            f"{SMALLEST}"
        )
    if np.issubdtype(plane.dtype, np.inexact) and not np.isfinite(plane).all():
        raise ValueError(f"{where}: the image has NaN or infinite pixels; replace them before segmenting")
    return plane


def _result(place: _Place, prediction: Prediction, predictor: Predictor) -> PlaneResult:
    image, index = place.image, place.wanted[place.nth]
    family, names = predictor.info.model.family, predictor.settings.maps
    maps = explain.attention_maps(family, prediction.outputs, prediction.geometry, names)
    if predictor.settings.grad_cam:
        inputs, classes = prediction.network_input.to(predictor.device), predictor.classes
        maps += explain.grad_cams(predictor.model, inputs, classes, prediction.geometry, predictor.settings.grad_cam)
    rows = measure.measure_all(prediction.finding, image.pixel_size_um)
    return PlaneResult(
        index, prediction.plane, prediction.finding, maps, [{**measure.where(image, index), **row} for row in rows]
    )
