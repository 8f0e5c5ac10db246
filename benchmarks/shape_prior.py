"""Measure how much the shape code knows about the shapes of blastomeres; print one table.

For each grid M x M and each size K of the codebook, a shape code learns complete silhouettes in jittered boxes
(annotated embryos, drawn ones, and overlapping cells if available) and is tested on embryos it has not seen:

whole       IoU of a silhouette with its reconstruction
in use      share of the codes that occur, and their perplexity
seen        IoU with the whole of the visible part left by another silhouette or a straight cut (same for all rows)
part        IoU with the whole of the reconstruction of that part, in the box of the whole, as a detector provides it
completed   the same from the part alone, by napari_embryo.models.shapecode.complete
kept        IoU of a whole silhouette with its own completion

With --visible every row is followed by one that learned half of its silhouettes from a part (like ShapeFormer).

    python benchmarks/shape_prior.py --data DIR
    python benchmarks/shape_prior.py --data DIR --grids 4 --codes 128 --visible
    python benchmarks/shape_prior.py --data DIR --weights bundled   # a trained shape code
"""

import argparse
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import cos, pi
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from napari_embryo import completion, library
from napari_embryo.data import Sample, find_samples, split
from napari_embryo.families import ShapeCodeSettings
from napari_embryo.models import checkpoint, shapecode
from napari_embryo.models.boxes import boxes_of, crop_masks, grown, jitter
from napari_embryo.models.shapecode import GROW, ShapeCode
from napari_embryo.settings import DataSettings
from napari_embryo.synthetic import draw_cleavage

CANVAS = 128
BOX = torch.tensor([[32.0, 32, 96, 96]])
"""Box of a silhouette on its canvas: every silhouette is stored at this size, with a margin around it."""
LEAST_VISIBLE, MOST_VISIBLE = 0.42, 0.9
PLACES = 12
"""Distances of another silhouette placed in front of one, from next to it to on top of it."""
PARTS_OF_EACH = 4
LEAST_PIXELS = 100
HEADINGS = ("M", "K", "learned", "whole", "in use", "perplexity", "seen", "part", "completed", "kept", "s/step")


@dataclass(frozen=True)
class Silhouettes:
    """Whole silhouettes (N, 128, 128) and parts of each (N, P, 128, 128), bool."""

    whole: Tensor
    parts: Tensor


def main() -> None:
    """Train, test and print."""
    options = parse()
    learned, unseen = read(options)
    tell(f"{len(learned.whole)} silhouettes for training, {len(unseen.whole)} for testing")
    title = options.weights or f"{options.steps} steps of {options.batch}, side {options.side}"
    table = Table(*HEADINGS, title=title)
    rows = of_weights(options.weights, unseen) if options.weights else of_table(options, learned, unseen)
    for row in rows:
        tell(" ".join(row))
        table.add_row(*row)
    Console(width=120).print(table)


def of_table(options: argparse.Namespace, learned: Silhouettes, unseen: Silhouettes) -> Iterator[list[str]]:
    """Train every shape code and return a row for each."""
    for grid, codes in product(options.grids, options.codes):
        for with_parts in (False, True) if options.visible else (False,):
            settings = ShapeCodeSettings(side=options.side, grid=grid, codes=codes)
            start = time.perf_counter()
            model = learn(settings, learned, options, with_parts)
            pace = (time.perf_counter() - start) / options.steps
            yield [*measure(model, unseen, "whole, parts" if with_parts else "whole"), f"{pace:.2f}"]


def of_weights(weights: str, unseen: Silhouettes) -> Iterator[list[str]]:
    """A row for the shape code in a file, possibly within a detector."""
    path = library.find(weights, completion.FAMILY)
    yield [*measure(completion.shape_code_of(checkpoint.load(path), path), unseen, path.stem), ""]


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that contains cleavage/annotated and overlap")
    parser.add_argument("--grids", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--codes", type=int, nargs="+", default=[32, 128, 512])
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--drawn", type=int, default=80, help="number of drawn embryos to learn from")
    parser.add_argument("--visible", action="store_true", help="also learn to turn parts into wholes")
    parser.add_argument("--weights", help="evaluate a trained shape code instead of the table")
    return parser.parse_args()


def tell(line: str) -> None:
    """Print progress, apart from the table."""
    print(line, file=sys.stderr, flush=True)


def read(options: argparse.Namespace) -> tuple[Silhouettes, Silhouettes]:
    """The silhouettes for training, and those of held-out embryos."""
    settings = DataSettings(folders=(str(options.data / "cleavage" / "annotated"),), validation=0.25, seed=0)
    annotated = split(find_samples(settings, ("cell",)).samples, settings)
    known = [*of_samples(annotated.train), *of_drawings(options.drawn)]
    overlap = options.data / "overlap"
    if overlap.is_dir():
        known += of_samples(find_samples(DataSettings(folders=(str(overlap),)), ("cell",)).samples)
    generator = torch.Generator().manual_seed(0)
    return with_parts_of(torch.cat(known), generator), with_parts_of(
        torch.cat(of_samples(annotated.validation)), generator
    )


def of_samples(samples: Iterable[Sample]) -> list[Tensor]:
    """The complete cells of annotated images on canvases."""
    return [on_canvas(sample.read().cells) for sample in samples]


def of_drawings(number: int) -> list[Tensor]:
    """The cells of drawn embryos."""
    cells = (draw_cleavage(seed, shape=(320, 320)).cells for seed in range(number))
    return [on_canvas(each) for each in cells if each is not None]


def on_canvas(cells: np.ndarray) -> Tensor:
    """Cells (N, H, W) -> (N, 128, 128) bool, each with its box at ``BOX``."""
    masks = torch.from_numpy(cells)
    masks = masks[masks.sum((1, 2)) >= LEAST_PIXELS]
    return crop_masks(masks, grown(boxes_of(masks), 0.5), CANVAS).bool()


def with_parts_of(whole: Tensor, generator: torch.Generator) -> Silhouettes:
    """Pair each silhouette with its visible parts behind others and straight cuts."""
    parts = []
    for i in range(PARTS_OF_EACH):
        left = torch.empty(len(whole)).uniform_(LEAST_VISIBLE, MOST_VISIBLE, generator=generator)
        hide = hidden_by_others if i % 2 else cut
        parts.append(hide(whole, left, generator))
    return Silhouettes(whole, torch.stack(parts, 1))


def cut(whole: Tensor, left: Tensor, generator: torch.Generator) -> Tensor:
    """The share ``left`` of a silhouette on one side of a straight line."""
    angle = 2 * pi * torch.rand(len(whole), generator=generator)
    line = torch.arange(CANVAS, dtype=torch.float32)
    along = line[:, None] * angle.sin()[:, None, None] + line * angle.cos()[:, None, None]
    ends = [float(a[w].quantile(float(q))) for a, w, q in zip(along, whole, left, strict=True)]
    return whole & (along <= torch.tensor(ends)[:, None, None])


def hidden_by_others(whole: Tensor, left: Tensor, generator: torch.Generator) -> Tensor:
    """The part left visible by another silhouette that moves closer until about a share ``left`` is visible."""
    angle = 2 * pi * torch.rand(len(whole), generator=generator)
    toward = torch.stack((angle.cos(), angle.sin()) * 2, 1)
    others = whole[torch.randperm(len(whole), generator=generator)]
    best, nearest = whole.clone(), torch.full((len(whole),), 9.0)
    for away in torch.linspace(70, 8, PLACES):
        covered = crop_masks(others, torch.tensor([[0.0, 0, CANVAS, CANVAS]]) + away * toward, CANVAS).bool()
        seen = whole & ~covered
        error = (seen.sum((1, 2)) / whole.sum((1, 2)) - left).abs()
        better = (error < nearest) & seen.any(2).any(1)
        best[better], nearest[better] = seen[better], error[better]
    return best


def measure(model: ShapeCode, unseen: Silhouettes, kind: str) -> list[str]:
    """A row without the training speed."""
    settings = model.settings
    whole, indices = reconstruct(model, unseen)
    share, perplexity = shapecode.codes_in_use(indices, settings.codes)
    seen, part, completed = from_parts(model, unseen)
    kept = np.mean([iou(shapecode.complete(model, mask.numpy()) >= 0.5, mask.numpy()) for mask in unseen.whole])
    numbers = [f"{n:.3f}" for n in (seen, part, completed, kept)]
    return [
        str(settings.grid),
        str(settings.codes),
        kind,
        f"{whole:.4f}",
        f"{share:.0%}",
        f"{perplexity:.0f}",
        *numbers,
    ]


def learn(
    settings: ShapeCodeSettings, silhouettes: Silhouettes, options: argparse.Namespace, with_parts: bool
) -> ShapeCode:
    """Train with Adam, from 1e-3 along a cosine to 0."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    model = ShapeCode(settings)
    optimizer = torch.optim.Adam(model.parameters())
    for step in range(options.steps):
        optimizer.param_groups[0]["lr"] = 1e-3 * (1 + cos(pi * step / options.steps)) / 2
        image, masks = batch(silhouettes, options.batch, settings.side, generator, with_parts)
        targets = {"masks": masks, "valid": torch.ones_like(masks)}
        losses = shapecode.loss(model(image), targets)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
    return model.eval()


def batch(
    silhouettes: Silhouettes, size: int, side: int, generator: torch.Generator, with_parts: bool
) -> tuple[Tensor, Tensor]:
    """Inputs and targets (N, 1, side, side), randomly mirrored and rotated.

    If parts are learned, half of the silhouettes are parts; half of those, and a quarter of the wholes, are in boxes
    grown from the visible part, as in :func:`shapecode.complete`.
    """
    which = torch.randint(len(silhouettes.whole), (size,), generator=generator)
    shown = whole = silhouettes.whole[which]
    boxes = jitter(BOX.expand(size, 4), generator)
    if with_parts:
        parts = silhouettes.parts[which, torch.randint(silhouettes.parts.shape[1], (size,), generator=generator)]
        draw = torch.rand(2, size, generator=generator)
        is_part = draw[0] < 0.5
        shown = torch.where(is_part[:, None, None], parts, whole)
        own = jitter(grown(boxes_of(shown), GROW), generator, 0.7)
        boxes = torch.where((draw[1] < torch.where(is_part, 0.5, 0.25))[:, None], own, boxes)
    both = torch.stack((crop_masks(shown, boxes, side), crop_masks(whole, boxes, side)), 1)
    turns, mirrors = torch.randint(4, (size,), generator=generator), torch.rand(size, generator=generator) < 0.5
    turned = torch.stack([torch.rot90(b, int(k), (1, 2)) for b, k in zip(both, turns, strict=True)])
    turned[mirrors] = turned[mirrors].flip(-1)
    return turned[:, :1], turned[:, 1:]


@torch.no_grad()
def drawn_back(model: ShapeCode, shown: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Reconstructed squares (N, side, side) bool, and their codes (N, M, M)."""
    indices = model.encode(crop_masks(shown, boxes, model.settings.side)[:, None])
    return model.decode(model.embed(indices))[:, 0] >= 0, indices


def reconstruct(model: ShapeCode, unseen: Silhouettes, times: int = 4) -> tuple[float, Tensor]:
    """Mean IoU of whole silhouettes in jittered boxes, and their codes."""
    generator = torch.Generator().manual_seed(2)
    overlaps: list[float] = []
    codes: list[Tensor] = []
    for _ in range(times):
        boxes = jitter(BOX.expand(len(unseen.whole), 4), generator)
        found, indices = drawn_back(model, unseen.whole, boxes)
        overlaps += ious(found, crop_masks(unseen.whole, boxes, model.settings.side).bool())
        codes.append(indices)
    return float(np.mean(overlaps)), torch.cat(codes)


def from_parts(model: ShapeCode, unseen: Silhouettes) -> tuple[float, float, float]:
    """Mean IoU with the whole: of the part, of its reconstruction in the box of the whole, and of its completion."""
    generator = torch.Generator().manual_seed(3)
    seen: list[float] = []
    part: list[float] = []
    completed: list[float] = []
    for parts in unseen.parts.unbind(1):
        seen += ious(parts, unseen.whole)
        boxes = jitter(BOX.expand(len(parts), 4), generator)
        part += ious(drawn_back(model, parts, boxes)[0], crop_masks(unseen.whole, boxes, model.settings.side).bool())
        pairs = zip(parts.numpy(), unseen.whole.numpy(), strict=True)
        completed += [iou(shapecode.complete(model, shown) >= 0.5, whole) for shown, whole in pairs]
    return float(np.mean(seen)), float(np.mean(part)), float(np.mean(completed))


def ious(found: Tensor, drawn: Tensor) -> Sequence[float]:
    """IoU of each pair of masks (N, h, w)."""
    return [iou(f, d) for f, d in zip(found.numpy(), drawn.numpy(), strict=True)]


def iou(found: np.ndarray, drawn: np.ndarray) -> float:
    """IoU of two masks that are not both empty."""
    return float((found & drawn).sum() / max(1, (found | drawn).sum()))


if __name__ == "__main__":
    main()
