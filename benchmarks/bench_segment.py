"""Compare the program's speed with that of the bare network; print one table.

The real path is what ``napari-embryo segment`` does with a folder of images: read, segment, attention maps, overlay,
measure, write. The bare forward pass is the same network, on the same device, on the very inputs that the real path
prepared, batch by batch. Both run in turn several times; medians and ranges are printed.

An image with a small embryo gets a second, closer look, so there can be more forward passes than images. The bare
network is therefore timed both ways: over every input of the real path, and over the first look at each image only.
"""

import argparse
import platform
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
import torchvision
from PIL import Image
from rich.console import Console
from rich.table import Table
from rounds import interleaved, ratio
from torch import Tensor, nn

from napari_embryo import __version__, io, models, pipeline, predict
from napari_embryo.families import ResANetSettings
from napari_embryo.geometry import Box
from napari_embryo.models import checkpoint
from napari_embryo.predict import Predictor
from napari_embryo.predict.predictor import Plane
from napari_embryo.settings import Preprocessing, SegmentSettings
from napari_embryo.synthetic import draw_blastocyst

GOAL = 0.9


@dataclass(frozen=True)
class Pass:
    """One forward pass of the real path: its inputs, and whether it was the first look at an image."""

    inputs: Tensor
    is_first_look: bool


def main() -> None:
    """Measure and print."""
    options = parse()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or draw_folder(Path(scratch) / "pictures", options.images)
        predictor = load(options.weights, options.device)
        passes = record(folder, Path(scratch), predictor, options.images)
        pictures = sum(len(p.inputs) for p in passes if p.is_first_look)
        if pictures == 0:
            raise SystemExit(f"{folder}: no image could be segmented")
        seconds = interleaved(jobs(folder, Path(scratch), predictor, passes, options.images), options.repeats)
    report(predictor, passes, pictures, seconds, options)


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=16, help="number of images (default 16)")
    parser.add_argument("--folder", type=Path, help="folder of your own images instead of drawn ones")
    parser.add_argument("--weights", default="bundled", help="'bundled', a checkpoint, or 'random'")
    parser.add_argument("--device", default="auto", choices=("auto", "cuda", "mps", "cpu"))
    parser.add_argument("--repeats", type=int, default=5, help="number of timings of each (default 5)")
    return parser.parse_args()


def draw_folder(folder: Path, count: int) -> Path:
    """Drawn blastocysts, one in five small as in a time-lapse incubator."""
    folder.mkdir()
    for seed in range(count):
        embryo = draw_blastocyst(seed, style="incubator" if seed % 5 == 4 else "microscope")
        Image.fromarray(embryo.image).save(folder / f"blastocyst_{seed:04d}_{seed:x}x.png")
    return folder


def load(weights: str, device: str) -> Predictor:
    """The requested network; without bundled weights a random one, whose empty masks are faster to measure."""
    settings = SegmentSettings.model_validate({"weights": weights, "device": device})
    if weights != "random":
        try:
            return pipeline.load_predictor(settings)
        except FileNotFoundError as error:
            if weights != checkpoint.BUNDLED:
                raise
            print(
                f"{error}\nContinuing with random weights: the masks are arbitrary, so the work after the network is "
                "not typical."
            )
    torch.manual_seed(0)
    chosen = ResANetSettings()
    info = checkpoint.CheckpointInfo(model=chosen, preprocessing=Preprocessing())
    return Predictor(checkpoint.Checkpoint(models.build(chosen).eval(), info, "random"), settings)


def segment_folder(folder: Path, out: Path, predictor: Predictor, limit: int) -> None:
    """Segment as the command line does."""
    images = map(io.open_image, io.plan_path(folder, "separate").images[:limit])
    steps = pipeline.segment_all_to_files(((image, out / image.name) for image in images), predictor)
    results = [p.item for _, p in steps if isinstance(p.item, pipeline.ImageResult)]
    rows = [row for result in results for row in result.rows]
    io.write_csv_atomic(out / "measurements.csv", rows)


@contextmanager
def listening(predictor: Predictor, passes: list[Pass]) -> Iterator[None]:
    """Record the inputs of every forward pass, and whether it was a first look."""
    look: list[bool] = []
    original = Predictor._look

    def looked(self: Predictor, planes: list[Plane], boxes: list[Box | None]) -> list[predict.Prediction]:
        look.append(all(box is None for box in boxes))
        return original(self, planes, boxes)

    def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        passes.append(Pass(inputs[0].detach().clone(), look[-1]))

    Predictor._look = looked  # type: ignore[method-assign,assignment]
    handle = predictor.model.register_forward_pre_hook(keep)
    try:
        yield
    finally:
        handle.remove()
        Predictor._look = original  # type: ignore[method-assign]


def record(folder: Path, scratch: Path, predictor: Predictor, limit: int) -> list[Pass]:
    """Do one untimed run, which also warms everything up."""
    passes: list[Pass] = []
    out = scratch / "warm_up"
    out.mkdir()
    with listening(predictor, passes):
        segment_folder(folder, out, predictor, limit)
    return passes


def jobs(
    folder: Path, scratch: Path, predictor: Predictor, passes: list[Pass], limit: int
) -> dict[str, Callable[[], None]]:
    """The functions to time, by name."""
    out = scratch / "out"
    out.mkdir()
    one = passes[0].inputs[:1]
    others = {
        "ResA-Net base": models.build(ResANetSettings(width="base")),
        "ResA-Net wide": models.build(ResANetSettings(width="wide")),
        "ResNet-50 (torchvision)": torchvision.models.resnet50(weights=None),
    }
    one_picture = {name: ready(net, predictor) for name, net in others.items()}
    return {
        "segment": lambda: segment_folder(folder, out, predictor, limit),
        "bare, all passes": lambda: forward_all(predictor, predictor.model, [p.inputs for p in passes]),
        "bare, first looks": lambda: forward_all(
            predictor, predictor.model, [p.inputs for p in passes if p.is_first_look]
        ),
        **{
            name: lambda net=net, name=name: forward_all(predictor, net, [shaped(one, name)] * 4)  # type: ignore[misc]
            for name, net in one_picture.items()
        },
    }


def shaped(inputs: Tensor, name: str) -> Tensor:
    """Adapt the channels: ResA-Net takes one, the plain ResNet-50 three."""
    return inputs.expand(-1, 3, -1, -1) if name.startswith("ResNet") else inputs


def ready(net: nn.Module, predictor: Predictor) -> nn.Module:
    """Set up a network as in the predictor."""
    ready_net: nn.Module = net.eval().to(predictor.device).to(memory_format=torch.channels_last)
    return ready_net


def forward_all(predictor: Predictor, net: nn.Module, batches: list[Tensor]) -> None:
    """The forward pass alone, with inputs already on the device."""
    with torch.inference_mode(), predictor._autocast():
        for inputs in batches:
            net(inputs.contiguous(memory_format=torch.channels_last))
    if predictor.device.type == "cuda":
        torch.cuda.synchronize()


def report(
    predictor: Predictor,
    passes: list[Pass],
    pictures: int,
    seconds: dict[str, list[float]],
    options: argparse.Namespace,
) -> None:
    """Print the table and the conditions."""
    height, width = passes[0].inputs.shape[-2:]
    second = sum(len(p.inputs) for p in passes if not p.is_first_look)
    done = {"segment": pictures, "bare, all passes": pictures, "bare, first looks": pictures}
    rates = {name: [done.get(name, 4) / s for s in each] for name, each in seconds.items()}
    table = Table(title=f"{pictures} images, {second} closer looks, network input {height} x {width}")
    for column in ("what", "images/s", "range", "segment reaches", "x ResNet-50"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for name, each in rates.items():
        share = ratio(rates["segment"], each) if name.startswith("bare") else ""
        slower = ratio(rates["ResNet-50 (torchvision)"], each) if name.startswith("Res") else ""
        table.add_row(name, f"{median(each):.2f}", f"{min(each):.2f}-{max(each):.2f}", share, slower)
    console = Console(width=110, highlight=False)
    console.print(table)
    console.print(
        f"'segment reaches' is the median of the ratios within rounds; the goal is {GOAL} of 'bare, all passes'."
    )
    console.print("'x ResNet-50': time relative to a forward pass of a plain ResNet-50; one image at a time.")
    console.print(conditions(predictor, options.repeats))


def conditions(predictor: Predictor, repeats: int) -> str:
    """Conditions needed to compare with another machine."""
    return (
        f"napari-embryo {__version__}, weights {predictor.settings.weights} ({predictor.sha256[:12]}), "
        f"{predictor.info.model.family} {getattr(predictor.info.model, 'width', '')}; device {predictor.device}, "
        f"bfloat16 {predict.use_bfloat16(predictor.settings.precision, predictor.device)}; torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads; numpy {np.__version__}; Python {platform.python_version()} on "
        f"{platform.platform()}, {platform.machine()}; {repeats} rounds"
    )


if __name__ == "__main__":
    main()
