"""Compare RegDeepLab's forward pass with another library's plain DeepLabV3+; print one table per size.

The other is the DeepLabV3+ of segmentation_models_pytorch with the same ResNet-50, output stride, input and number of
outputs. All networks run once per round, one after the other, so that slow periods of the machine affect all alike;
medians and ranges of the ratios within rounds are printed.
"""

import argparse
import platform
from collections.abc import Callable
from typing import Any

import segmentation_models_pytorch as smp
import torch
from rich.console import Console
from rounds import interleaved, table
from torch import Tensor, nn

from napari_embryo import __version__, models
from napari_embryo.families import RegDeepLabSettings

GOAL = 1.1
OTHER = "DeepLabV3+ (segmentation_models_pytorch)"
OURS: dict[str, dict[str, Any]] = {
    "RegDeepLab": {},
    "with injection by 1x1": {"inject": "1x1"},
    "with injection by 3x3": {"inject": "3x3"},
    "without gate and regression": {"gate": False, "regression": False, "inject": "none"},
}


def main() -> None:
    """Measure and print."""
    options = parse()
    console = Console(width=110, highlight=False)
    for size in options.sizes:
        networks = build(options.output_stride, options.device)
        images = torch.randn(options.batch, 1, size, size, device=options.device)
        seconds = interleaved({name: job(net, images, name) for name, net in networks.items()}, options.repeats)
        title = f"forward pass, {options.batch} x {size} x {size}, output stride {options.output_stride}"
        console.print(table(networks, seconds, OTHER, title))
    console.print(
        f"'x other' is the median of the ratios within rounds (range); the goal for RegDeepLab is at most {GOAL}."
    )
    console.print(conditions(options))


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[512, 256], help="side length in pixels (default 512 256)"
    )
    parser.add_argument("--output-stride", type=int, default=16, choices=(8, 16))
    parser.add_argument("--batch", type=int, default=1, help="batch size (default 1)")
    parser.add_argument("--device", default="cpu", choices=("cuda", "mps", "cpu"))
    parser.add_argument("--repeats", type=int, default=9, help="number of timings of each network (default 9)")
    return parser.parse_args()


def build(output_stride: int, device: str) -> dict[str, nn.Module]:
    """Networks with random weights, set up as in the predictor."""
    torch.manual_seed(0)
    other = smp.DeepLabV3Plus("resnet50", encoder_weights=None, encoder_output_stride=output_stride, classes=2)
    ours = {
        name: models.build(RegDeepLabSettings.model_validate({"output_stride": output_stride, **options}))
        for name, options in OURS.items()
    }
    return {
        name: net.eval().to(device).to(memory_format=torch.channels_last)
        for name, net in {OTHER: other, **ours}.items()
    }


def job(net: nn.Module, images: Tensor, name: str) -> Callable[[], None]:
    """Run one forward pass; the other library's network takes three channels."""
    shaped = images.repeat(1, 3, 1, 1) if name == OTHER else images
    shaped = shaped.contiguous(memory_format=torch.channels_last)

    def run() -> None:
        with torch.inference_mode():
            net(shaped)
        if shaped.is_cuda:
            torch.cuda.synchronize()

    return run


def conditions(options: argparse.Namespace) -> str:
    """Conditions needed to compare with another machine."""
    return (
        f"napari-embryo {__version__}; segmentation_models_pytorch {smp.__version__}; "
        f"device {options.device}, float32; "
        f"torch {torch.__version__}, {torch.get_num_threads()} threads; Python {platform.python_version()} on "
        f"{platform.platform()}, {platform.machine()}; {options.repeats} rounds"
    )


if __name__ == "__main__":
    main()
