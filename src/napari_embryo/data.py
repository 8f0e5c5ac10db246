"""From annotated folders to training samples; the split by embryo; augmentation."""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from skimage.draw import polygon2mask
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from napari_embryo import geometry, io
from napari_embryo.geometry import Box
from napari_embryo.settings import BLASTOCYST_CLASSES, Preprocessing

Polygons = dict[str, list[npt.NDArray[np.float64]]]
_EMBRYO_PATTERNS = (
    re.compile(r"(?P<embryo>[RT]\d{2}-\d+)[A-Za-z]?$"),  # clinic's patient number, siblings a, b, ...
    re.compile(r"^stork_(?P<embryo>\d+)"),
    re.compile(r"(?P<embryo>d5\.\d+)"),
    re.compile(r"^D\d{4}\.\d{2}\.\d{2}_(?P<embryo>S\d+_I\d+.*?WELL\d+)"),
)


@dataclass(frozen=True, eq=False)
class Sample:
    """One annotated picture.

    Parameters
    ----------
    name
        File stem.
    embryo
        What must stay on one side of a split: the patient where known, else the embryo.
    source
        The folder it came from, for tables by kind of image.
    image
        (H, W) grey.
    masks
        (C, H, W) bool in the order of the classes.
    known
        (C,) bool: False where the class was not drawn, which is not the same as empty.
    """

    name: str
    embryo: str
    source: str
    image: npt.NDArray[Any]
    masks: npt.NDArray[np.bool_]
    known: npt.NDArray[np.bool_]

    @property
    def box(self) -> Box:
        """The smallest box around everything drawn."""
        ys, xs = np.nonzero(self.masks.any(axis=0))
        return int(ys.min()), int(xs.min()), int(ys.max()) + 1, int(xs.max()) + 1


def embryo_of(name: str) -> str:
    """Patient or embryo a file name belongs to; the name itself where no pattern is known.

    >>> embryo_of("Blast_PCRM_R13-0140b"), embryo_of("stork_32176207_0_2BB-")
    ('R13-0140', '32176207')
    """
    found = (pattern.search(name) for pattern in _EMBRYO_PATTERNS)
    return next((match["embryo"] for match in found if match), name)


def read_polygons(path: Path) -> Polygons:
    """LabelMe's polygons by label; (N, 2) arrays of (y, x)."""
    try:
        shapes = json.loads(path.read_text(encoding="utf-8"))["shapes"]
        polygons: Polygons = {}
        for shape in shapes:
            points = np.asarray(shape["points"], float)[:, ::-1]
            polygons.setdefault(shape["label"], []).append(points)
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, IndexError, ValueError) as error:
        raise ValueError(f"{path}: not a LabelMe file with polygons under 'shapes' ({error!r})") from error
    return polygons


def blastocyst_masks(polygons: Polygons, shape: tuple[int, int]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """ICM, TE, ZP masks (3, H, W) and which of them are known (3,), from the rings drawn.

    ZP = zp_outer minus zp_inner; ICM = icm; TE = zp_inner minus cavity minus icm. ICM and TE are unknown where cavity
    or icm is not drawn.
    """
    drawn = {label: _fill(rings, shape) for label, rings in polygons.items()}
    lacking = {"zp_outer", "zp_inner"} - drawn.keys()
    if lacking:
        raise ValueError(f"a blastocyst needs the polygons zp_outer and zp_inner; {', '.join(sorted(lacking))} missing")
    nothing = np.zeros(shape, bool)
    icm, cavity = drawn.get("icm", nothing), drawn.get("cavity", nothing)
    inner = drawn["zp_inner"]
    complete = {"icm", "cavity"} <= drawn.keys()
    masks = np.stack((icm, inner & ~cavity & ~icm, drawn["zp_outer"] & ~inner))
    known = np.array((complete, complete, True))
    return masks & known[:, None, None], known


def _fill(rings: Iterable[npt.NDArray[np.float64]], shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    filled: npt.NDArray[np.bool_] = np.any([polygon2mask(shape, ring) for ring in rings], axis=0)
    return filled


def read_labelme_folder(folder: Path) -> list[Sample]:
    """Every image of ``folder`` that has a LabelMe file beside it."""
    return [_labelme_sample(path) for path in sorted(folder.glob("*.json"))]


def _labelme_sample(path: Path) -> Sample:
    image = np.asarray(io.read_image(_image_beside(path)).data)
    polygons = read_polygons(path)
    try:
        masks, known = blastocyst_masks(polygons, image.shape)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return Sample(path.stem, embryo_of(path.stem), path.parent.name, image, masks, known)


def _image_beside(path: Path) -> Path:
    for suffix in (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".JPG", ".BMP"):
        if path.with_suffix(suffix).exists():
            return path.with_suffix(suffix)
    raise FileNotFoundError(f"{path}: no image of the same name (png, jpg, bmp, tif) lies beside it")


def read_mask_files(folder: Path, classes: Sequence[str] = BLASTOCYST_CLASSES) -> list[Sample]:
    """Images with experts' masks beside them: ``NAME.png`` and ``NAME_ICM_Mask.png``, ``NAME_TE_Mask.png``..."""
    stems = sorted({p.name.removesuffix(f"_{classes[0]}_Mask.png") for p in folder.glob(f"*_{classes[0]}_Mask.png")})
    return [_mask_file_sample(folder, stem, classes) for stem in stems]


def _mask_file_sample(folder: Path, stem: str, classes: Sequence[str]) -> Sample:
    image = np.asarray(io.read_image(folder / f"{stem}.png").data)
    masks = np.stack([np.asarray(io.read_image(folder / f"{stem}_{c}_Mask.png").data) > 127 for c in classes])
    return Sample(stem, embryo_of(stem), folder.name, image, masks, np.ones(len(classes), bool))


def split_by_embryo(samples: Sequence[Sample], share: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Training and validation samples; no embryo on both sides, every source on both, none empty.

    Raises
    ------
    ValueError
        When a source has fewer than two embryos, or shares so many with another that one side would lack it.
    """
    chosen: set[str] = set()
    for source in sorted({s.source for s in samples}):
        embryos = sorted({s.embryo for s in samples if s.source == source})
        if len(embryos) < 2:
            raise ValueError(f"{source}: {len(embryos)} embryo; a split needs at least two")
        count = min(len(embryos) - 1, max(1, round(share * len(embryos))))
        chosen |= set(np.random.default_rng(seed).permutation(embryos)[:count])
    train, validation = [s for s in samples if s.embryo not in chosen], [s for s in samples if s.embryo in chosen]
    _check_sources(samples, train, validation)
    return train, validation


def _check_sources(samples: Sequence[Sample], *sides: Sequence[Sample]) -> None:
    """Embryos that stand in two sources can empty one side of one of them."""
    for side in sides:
        lacking = {s.source for s in samples} - {s.source for s in side}
        if lacking or not side:
            raise ValueError(
                f"{', '.join(sorted(lacking)) or 'no samples'}: too few embryos of its own to stand on both sides of "
                "the split; add embryos or choose another seed"
            )


class TrainingSet(Dataset[dict[str, Tensor]]):
    """Augmented samples at the network's size; item ``i`` of epoch ``e`` is the same in every run.

    Parameters
    ----------
    samples
        What to learn from.
    preprocessing
        Size and normalisation.
    seed
        Of the augmentation.
    augment
        False: the plain letterboxed picture.
    """

    def __init__(
        self, samples: Sequence[Sample], preprocessing: Preprocessing, seed: int = 0, augment: bool = True
    ) -> None:
        self.samples, self.preprocessing, self.seed, self.augment = samples, preprocessing, seed, augment
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        sample = self.samples[index]
        if not self.augment:
            return to_targets(sample, self.preprocessing)
        seed = int(np.random.SeedSequence((self.seed, self.epoch, index)).generate_state(1)[0])
        rng = np.random.default_rng(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return _augmented(sample, self.preprocessing, rng)


def to_targets(sample: Sample, preprocessing: Preprocessing, box: Box | None = None) -> dict[str, Tensor]:
    """``image`` (1, h, w), ``masks`` (C, h, w), ``valid`` (1, h, w), ``known`` (C,) at the network's size."""
    plan = geometry.plan(sample.image.shape, preprocessing.net_hw, preprocessing.fit, box)
    return {
        "image": tv_tensors.Image(torch.from_numpy(geometry.network_input(sample.image, plan, preprocessing))),
        "masks": tv_tensors.Mask(torch.from_numpy(np.stack([plan.mask_to_net(m) for m in sample.masks]))),
        "valid": tv_tensors.Mask(torch.from_numpy(plan.valid())[None]),
        "known": torch.from_numpy(sample.known),
    }


_FINER = 1.25
"""Geometry is augmented on a finer grid and then shrunk with anti-aliasing, as in use."""

ZOOM = (0.65, 1.25)


def _spatial(hw: tuple[int, int]) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    transform: Callable[[dict[str, Tensor]], dict[str, Tensor]] = v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            v2.RandomVerticalFlip(),
            v2.RandomAffine(
                180, translate=(0.12, 0.12), scale=ZOOM, shear=6, interpolation=v2.InterpolationMode.BILINEAR
            ),
            v2.Resize(hw, antialias=True),
        ]
    )
    return transform


def _augmented(sample: Sample, preprocessing: Preprocessing, rng: np.random.Generator) -> dict[str, Tensor]:
    height, width = preprocessing.net_hw
    finer = preprocessing.model_copy(update={"height": round(height * _FINER), "width": round(width * _FINER)})
    item = _spatial(preprocessing.net_hw)(to_targets(sample, finer, _random_box(sample, rng)))
    item["image"] = _photometric(item["image"], rng) * item["valid"]
    return item


def _random_box(sample: Sample, rng: np.random.Generator) -> Box | None:
    """Half the time the whole picture, half the time a crop around the embryo, like the predictor's second look."""
    if rng.random() < 0.5:
        return None
    return geometry.grow(sample.box, rng.uniform(0.02, 0.3), sample.image.shape)


def _photometric(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Gamma, contrast, brightness, uneven illumination, blur and noise of a normalised grey picture (1, h, w)."""
    unit = (image * geometry.GREY_STD + geometry.GREY_MEAN).clamp(0, 1)
    unit = unit ** float(np.exp(rng.uniform(-0.45, 0.45)))
    unit = (unit - 0.5) * float(rng.uniform(0.6, 1.35)) + 0.5 + float(rng.uniform(-0.15, 0.15))
    unit = unit * _illumination(image.shape[-2:], rng)
    if rng.random() < 0.3:
        unit = v2.functional.gaussian_blur(unit, [5, 5], [float(rng.uniform(0.3, 1.3))])
    if rng.random() < 0.4:
        unit = unit + torch.randn(unit.shape) * float(rng.uniform(0.01, 0.06))
    if rng.random() < 0.1:
        unit = 1 - unit
    return (unit - geometry.GREY_MEAN) / geometry.GREY_STD


def _illumination(hw: Sequence[int], rng: np.random.Generator) -> Tensor:
    """A smooth field around 1: a slope and a vignette of random strength."""
    ys, xs = torch.meshgrid(torch.linspace(-1, 1, hw[0]), torch.linspace(-1, 1, hw[1]), indexing="ij")
    dy, dx, vignette = (float(v) for v in rng.uniform((-0.25, -0.25, -0.1), (0.25, 0.25, 0.35)))
    field: Tensor = 1 + dy * ys + dx * xs - vignette * (ys**2 + xs**2)
    return field
