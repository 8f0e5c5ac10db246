"""One embryo from start to end: predict, explain, measure, and the files that tell of it."""

import re
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_embryo import __version__, explain, io, measure, models, render
from napari_embryo.explain import AttentionMap
from napari_embryo.image import EmbryoImage, Progress, Segmentation
from napari_embryo.models import MapInfo, checkpoint
from napari_embryo.models.checkpoint import Checkpoint, CheckpointError
from napari_embryo.predict import Prediction, Predictor
from napari_embryo.render import Rgb
from napari_embryo.settings import SegmentSettings

Row = dict[str, str | int | float | None]
Index = tuple[int, ...]

SMALLEST = 16
"""Fewer pixels than this in height or width are no embryo."""

_NOT_IN_NAMES = re.compile(r'[<>:"/\\|?*\x00-\x1f]')
"""What some system forbids in a file's name; a channel's name may hold it."""

RESEARCH_ONLY = "research use only"

SHEET_FRAMES = 12
"""Frames of a stack shown in its overlay picture, evenly spaced."""


@dataclass(frozen=True, eq=False)
class PlaneResult:
    """What was found in one picture of an image; ``index`` is its place along the leading axes."""

    index: Index
    plane: npt.NDArray[Any]
    segmentation: Segmentation
    maps: tuple[AttentionMap, ...]
    rows: list[Row]


@dataclass(frozen=True)
class PlaneFailure:
    """A picture that could not be done, and why; the others are."""

    index: Index
    reason: str


def load_predictor(settings: SegmentSettings) -> Predictor:
    """The network that ``settings`` name, on its device.

    Raises
    ------
    FileNotFoundError, CheckpointError, ValueError
        No such weights, not ours, of another family, without such a map or layer, or a device that is not there.
    """
    loaded = _loaded(settings.weights, settings.family)
    explain.check_names(loaded.model, settings.maps, settings.grad_cam)
    return Predictor(loaded, settings, _quantifier(settings) if settings.ratio_weights else None)


def _loaded(weights: str, family: str) -> Checkpoint:
    loaded = checkpoint.load(weights, family)
    if loaded.info.model.family != family:
        raise CheckpointError(
            f"{weights}: weights of {loaded.info.model.family!r} came; those of {family!r} are needed"
        )
    return loaded


def _quantifier(settings: SegmentSettings) -> Predictor:
    loaded = _loaded(settings.ratio_weights, settings.family)
    described: Any = loaded.info.model
    if not described.regression:
        raise CheckpointError(f"{settings.ratio_weights}: these weights have no regression head to tell a ratio")
    own = {"weights": settings.ratio_weights, "ratio_weights": "", "maps": (), "grad_cam": ""}
    return Predictor(loaded, settings.model_copy(update=own))


def analyse(
    image: EmbryoImage, predictor: Predictor, indices: Sequence[Index] | None = None
) -> Generator[Progress, None, None]:
    """Segment, explain and measure the pictures of one image, one after the other, in order.

    Each :class:`Progress` carries a :class:`PlaneResult`, or a :class:`PlaneFailure` for a picture that could not be
    read. Stop iterating to cancel; nothing is computed twice and nothing is kept.

    Parameters
    ----------
    image
        Any axes; every picture along the leading axes is one.
    predictor
        From :func:`load_predictor`.
    indices
        Which pictures; all by default.
    """
    wanted = list(np.ndindex(image.shape[:-2])) if indices is None else list(indices)
    for step in _analyse_all([(image, wanted)], predictor):
        yield step.progress


@dataclass(frozen=True, eq=False)
class _Step:
    """One picture of one of many images."""

    image: EmbryoImage
    progress: Progress


@dataclass(frozen=True, eq=False)
class _Place:
    """Where a picture belongs: the ``nth`` of those wanted of an image, and of all."""

    image: EmbryoImage
    wanted: Sequence[Index]
    nth: int
    of_all: int

    def step(self, item: PlaneResult | PlaneFailure) -> _Step:
        total = len(self.wanted)
        said = _said(self.image, self.wanted[self.nth], total)
        return _Step(self.image, Progress(self.nth + 1, total, said, item))


def _analyse_all(images: Iterable[tuple[EmbryoImage, Sequence[Index]]], predictor: Predictor) -> Iterator[_Step]:
    """The pictures of all images as one stream, so that small images share batches; opened when their turn comes.

    A graphics card works one picture ahead, in a thread of its own, while the one before is measured and written. On
    the processor that would take longer, not less: the network's threads would wait for each other.
    """
    reader = _Reader(images)
    predictions = predictor.predict(reader.planes())
    with ThreadPoolExecutor(1) as pool:
        ahead = predictions if predictor.device.type == "cpu" else _one_ahead(predictions, pool)
        for place, found in _in_order(ahead, reader):
            yield place.step(found if isinstance(found, PlaneFailure) else _result(place, found, predictor))


def _one_ahead(items: Iterator[Prediction], pool: Executor) -> Iterator[Prediction]:
    following = pool.submit(next, items, None)
    while (item := following.result()) is not None:
        following = pool.submit(next, items, None)
        yield item


class _Reader:
    """Reads pictures one at a time; remembers which came and which could not."""

    def __init__(self, images: Iterable[tuple[EmbryoImage, Sequence[Index]]]) -> None:
        self.images = images
        self.came: deque[_Place] = deque()
        self.failed: deque[tuple[_Place, PlaneFailure]] = deque()

    def planes(self) -> Iterator[npt.NDArray[Any]]:
        for place in self._places():
            index = place.wanted[place.nth]
            try:
                plane = _read_plane(place.image, index)
            except (OSError, ValueError) as error:
                self.failed.append((place, PlaneFailure(index, str(error))))
            else:
                self.came.append(place)
                yield plane

    def _places(self) -> Iterator[_Place]:
        count = 0
        for image, wanted in self.images:
            for nth in range(len(wanted)):
                yield _Place(image, wanted, nth, count)
                count += 1


def _in_order(predictions: Iterator[Prediction], reader: _Reader) -> Iterator[tuple[_Place, Prediction | PlaneFailure]]:
    """Predictions and failures by their place."""
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
            f"{where}: {plane.shape[0]} x {plane.shape[1]} pixels; at least {SMALLEST} x {SMALLEST} are needed"
        )
    if np.issubdtype(plane.dtype, np.inexact) and not np.isfinite(plane).all():
        raise ValueError(f"{where}: has NaN or infinite pixels; replace them before segmenting")
    return plane


def _result(place: _Place, prediction: Prediction, predictor: Predictor) -> PlaneResult:
    image, index = place.image, place.wanted[place.nth]
    family, names = predictor.info.model.family, predictor.settings.maps
    maps = explain.attention_maps(family, prediction.outputs, prediction.geometry, names)
    if predictor.settings.grad_cam:
        inputs, classes = prediction.network_input.to(predictor.device), predictor.classes
        maps += explain.grad_cams(predictor.model, inputs, classes, prediction.geometry, predictor.settings.grad_cam)
    rows = measure.measure_all(prediction.segmentation, image.pixel_size_um)
    return PlaneResult(
        index, prediction.plane, prediction.segmentation, maps, [{**measure.where(image, index), **row} for row in rows]
    )


def _shown(predictor: Predictor) -> dict[str, MapInfo]:
    """Every map that is made, by name, with its window and meaning."""
    known = models.MAPS[predictor.info.model.family]
    cams = explain.grad_cam_names(predictor.classes) if predictor.settings.grad_cam else ()
    meaning = f"evidence for the class at {predictor.settings.grad_cam}, over its maximum"
    return {name: known[name] for name in predictor.settings.maps} | {
        name: MapInfo(name, None, (0, 1), meaning) for name in cams
    }


def _said(image: EmbryoImage, index: Index, total: int) -> str:
    return (
        f"{image.name} {', '.join(f'{a} {i}' for a, i in zip(image.axes, index, strict=False))}"
        if total > 1
        else image.name
    )


def _drawn(plane: npt.NDArray[Any], found: Segmentation) -> Rgb:
    """The masks over their picture; what is a part of others lies on top, as in the labels."""
    order = sorted(range(len(found.classes)), key=lambda i: found.classes[i] in found.on_top)
    return render.overlay(plane, found.masks[order], [found.classes[i] for i in order])


def _graded(rows: Iterable[Row]) -> list[str]:
    """Ratio and grade for below a picture; as many lines for every picture of an image."""
    graded = [row for row in rows if row.get("ratio_basis")]
    return [
        line for row in graded for line in (measure.ratios_said(row), f"{measure.grade_said(row)}; {RESEARCH_ONLY}")
    ]


def provenance(image: EmbryoImage, predictor: Predictor) -> dict[str, Any]:
    """What every result says of its origin."""
    return {
        "program": f"napari-embryo {__version__}",
        "family": predictor.info.model.family,
        "weights": predictor.settings.weights,
        "weights_sha256": predictor.sha256,
        **({"ratio_weights_sha256": predictor.quantifier.sha256} if predictor.quantifier else {}),
        "settings": predictor.settings.model_dump(mode="json"),
        "source": _source(image),
        **{name: image.metadata[name] for name in ("focus", "focus_plane") if name in image.metadata},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _source(image: EmbryoImage) -> str:
    """Where it lies, for whoever opens the results from elsewhere."""
    path = image.metadata.get("source")
    return str(Path(path).absolute()) if path else image.name


def segment_to_files(
    image: EmbryoImage, predictor: Predictor, out: Path, name: str | None = None
) -> Generator[Progress, None, list[Row]]:
    """Analyse one image or time-lapse and write what was found; memory does not grow with its length.

    Writes ``<name>_labels.ome.tif`` (uint8: 0 background, i + 1 for class i), ``<name>_attention.ome.tif`` (float32, a
    channel per map, in the map's own range) and ``<name>_overlay.png``. A file appears when it is whole, or not at all.

    Parameters
    ----------
    image
        Axes YX or TYX.
    predictor
        From :func:`load_predictor`.
    out
        Existing folder.
    name
        Stem of the files; the image's name by default.

    Returns
    -------
    list of dict
        The rows of the table.

    Raises
    ------
    ValueError
        When not one picture could be done; the message is the first one's reason.
    """
    return (yield from _write(image, analyse(image, predictor), predictor, out, name or image.name))


@dataclass(frozen=True, eq=False)
class ImageResult:
    """One image is done: the rows of its table, or why it could not be done."""

    image: EmbryoImage
    rows: list[Row]
    reason: str | None = None


def segment_all_to_files(
    images: Iterable[EmbryoImage], predictor: Predictor, out: Path
) -> Generator[tuple[EmbryoImage, Progress], None, None]:
    """:func:`segment_to_files` for many images, faster: small ones share batches, writing overlaps computing.

    Yields every picture's progress with its image, and after an image's last one a progress with an
    :class:`ImageResult`. An image that cannot be written is named there and the others are done.
    """
    wanted = ((image, list(np.ndindex(image.shape[:-2]))) for image in images)
    for image, steps in groupby(_analyse_all(wanted, predictor), key=attrgetter("image")):
        writing = _write(image, (step.progress for step in steps), predictor, out, image.name)
        result = yield from _with_image(image, writing)
        yield image, Progress(image.n_planes, image.n_planes, image.name, result)


def _with_image(
    image: EmbryoImage, writing: Generator[Progress, None, list[Row]]
) -> Generator[tuple[EmbryoImage, Progress], None, ImageResult]:
    try:
        while True:
            yield image, next(writing)
    except StopIteration as finished:
        return ImageResult(image, finished.value)
    except (OSError, ValueError) as error:
        return ImageResult(image, [], str(error))
    finally:
        writing.close()


def _write(
    image: EmbryoImage, steps: Iterable[Progress], predictor: Predictor, out: Path, name: str
) -> Generator[Progress, None, list[Row]]:
    rows: list[Row] = []
    with ExitStack() as open_files:
        files = _Files(image, predictor, out / _NOT_IN_NAMES.sub("_", name), open_files)
        for progress in steps:
            if isinstance(progress.item, PlaneResult):
                rows += progress.item.rows
            files.write(progress.item)
            yield progress
            if progress.done == progress.total:  # its files must not wait for the next image
                break
        files.finish()
    return rows


class _Files:
    """The three files of one image, written picture after picture."""

    def __init__(self, image: EmbryoImage, predictor: Predictor, stem: Path, open_files: ExitStack) -> None:
        self.image, self.stem, self.classes = image, stem, predictor.classes
        shown = _shown(predictor)
        self.map_names = tuple(shown)
        self.pictures: list[Rgb] = []
        self.shown = set(np.linspace(0, image.n_planes - 1, min(SHEET_FRAMES, image.n_planes)).round().astype(int))
        about: dict[str, Any] = {
            "pixel_size_um": image.pixel_size_um,
            "hours": image.hours,
            "focus_um": image.focus_um,
            "metadata": provenance(image, predictor),
        }
        leading, hw = image.shape[:-2], image.shape[-2:]
        self.labels = open_files.enter_context(
            io.OmeTiffStackWriter(
                _beside(stem, "_labels.ome.tif"),
                image.shape,
                "uint8",
                image.axes,
                kind="labels",
                names=self.classes,
                **about,
            )
        )
        self.attention: io.OmeTiffStackWriter | None = None
        if self.map_names:
            about["metadata"] |= {"windows": {name: info.window for name, info in shown.items()}}
            about["metadata"] |= {"meanings": {name: info.meaning for name, info in shown.items()}}
            path, shape = _beside(stem, "_attention.ome.tif"), (*leading, len(self.map_names), *hw)
            self.attention = open_files.enter_context(
                io.OmeTiffStackWriter(path, shape, "float32", image.axes[:-2] + "CYX", names=self.map_names, **about)
            )
        self.failures: list[PlaneFailure] = []

    def write(self, item: PlaneResult | PlaneFailure) -> None:
        place = int(np.ravel_multi_index(item.index, self.image.shape[:-2])) if item.index else 0
        if isinstance(item, PlaneFailure):
            self.failures.append(item)
            return self._write_blank()
        self.labels.write(item.segmentation.labels())
        if self.attention:
            self.attention.write(np.stack([m.on_image() for m in item.maps]))
        if place in self.shown or not self.pictures:
            self._show(item)
        return None

    def _write_blank(self) -> None:
        """An unreadable frame of a stack stays empty, so that the others keep their place."""
        self._refuse_if_nothing_else()
        hw = self.image.shape[-2:]
        self.labels.write(np.zeros(hw, np.uint8))
        if self.attention:
            self.attention.write(np.zeros((len(self.map_names), *hw), np.float32))

    def _refuse_if_nothing_else(self) -> None:
        if len(self.failures) == self.image.n_planes:
            raise ValueError(self.failures[0].reason)

    def _show(self, item: PlaneResult) -> None:
        picture = _drawn(item.plane, item.segmentation)
        picture = render.with_legend(picture, self.classes, _said(self.image, item.index, self.image.n_planes))
        for line in _graded(item.rows):
            picture = render.with_legend(picture, (), line)
        self.pictures.append(picture)

    def finish(self) -> None:
        io.write_png(
            _beside(self.stem, "_overlay.png"), render.tiled(self.pictures, columns=min(4, len(self.pictures)))
        )


def _beside(stem: Path, ending: str) -> Path:
    return stem.with_name(stem.name + ending)
