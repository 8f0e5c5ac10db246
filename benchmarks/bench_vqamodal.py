"""Compare VQ amodal's inference with torchvision's Mask R-CNN; print one table per size.

The other is torchvision's ``maskrcnn_resnet50_fpn`` on the same image at the same size. All networks have random
weights, no score threshold, and the same number of boxes that get a mask. Its other settings are the defaults, so it
considers up to 1000 proposals where ours considers 200; a second row limits it to as many. All networks run once per
round, one after the other, so that slow periods of the machine affect all alike; medians and ranges of the ratios
within rounds are printed. ``--clock processor`` counts only the time of this process, for a machine with other load.
"""

import argparse
import platform
import time
from collections.abc import Callable
from typing import Any

import torch
import torchvision
from rich.console import Console
from rounds import interleaved, table
from torch import Tensor, nn
from torchvision.models.detection import maskrcnn_resnet50_fpn

from napari_embryo import __version__, models
from napari_embryo.families import VQAmodalSettings
from napari_embryo.models.vqamodal.roi_head import SPARE
from napari_embryo.models.vqamodal.rpn import AFTER_NMS

GOAL = 1.1
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "processor": time.process_time}
OTHER = "Mask R-CNN (torchvision)"
THEIRS: dict[str, dict[str, Any]] = {
    OTHER: {},
    f"the same, {AFTER_NMS} proposals": {"rpn_post_nms_top_n_test": AFTER_NMS},
}
OURS: dict[str, dict[str, Any]] = {
    "VQ amodal": {},
    "without the branch": {"occlusion": "none"},
    "without branch and refinement": {"occlusion": "none", "refine": False},
    "Mask R-CNN's head": {"head": "fcn", "occlusion": "none"},
    "ASN": {"head": "fcn", "occlusion": "asn"},
}


def main() -> None:
    """Measure and print."""
    options = parse()
    console = Console(width=110, highlight=False)
    for size in options.sizes:
        torch.manual_seed(0)
        image = torch.randn(1, 1, size, size, device=options.device)
        jobs = theirs(image, options.cells) | ours(image, options.cells)
        seconds = interleaved({name: job(*each) for name, each in jobs.items()}, options.repeats, CLOCKS[options.clock])
        networks = {name: net for name, (net, _) in jobs.items()}
        title = f"one image of {size} x {size}, {SPARE * options.cells} masks, at most {options.cells} cells"
        console.print(table(networks, seconds, OTHER, title))
    console.print(
        f"'x other' is the median of the ratios within rounds (range); the goal for VQ amodal is at most {GOAL}."
    )
    console.print(conditions(options))


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[512, 320], help="side length in pixels (default 512 320)"
    )
    parser.add_argument("--cells", type=int, default=8, help="cells found per image (default 8)")
    parser.add_argument("--device", default="cpu", choices=("cuda", "mps", "cpu"))
    parser.add_argument("--repeats", type=int, default=9, help="number of timings of each network (default 9)")
    parser.add_argument("--clock", default="wall", choices=tuple(CLOCKS), help="clock to use (default wall)")
    return parser.parse_args()


def theirs(image: Tensor, cells: int) -> dict[str, tuple[nn.Module, Any]]:
    """Torchvision's network, which takes a list of color images and resizes them to the size they have."""
    size = image.shape[-1]
    usual: dict[str, Any] = {
        "weights": None,
        "weights_backbone": None,
        "num_classes": 2,
        "min_size": size,
        "max_size": size,
        "box_detections_per_img": SPARE * cells,
        "box_score_thresh": 0.0,
    }
    return {
        name: (ready(maskrcnn_resnet50_fpn(**usual, **changed), image), [image[0].expand(3, -1, -1).contiguous()])
        for name, changed in THEIRS.items()
    }


def ours(image: Tensor, cells: int) -> dict[str, tuple[nn.Module, Any]]:
    """The network with random weights, set up as in the predictor."""
    shaped = image.contiguous(memory_format=torch.channels_last)
    usual = {"detections": cells, "score_threshold": 0.0}
    settings = {name: VQAmodalSettings.model_validate(usual | changed) for name, changed in OURS.items()}
    return {name: (ready(models.build(each), image), shaped) for name, each in settings.items()}


def ready(net: nn.Module, image: Tensor) -> nn.Module:
    """Set up for inference on the image's device."""
    return net.eval().to(image.device).to(memory_format=torch.channels_last)


def job(net: nn.Module, image: Any) -> Callable[[], None]:
    """One random image."""

    def run() -> None:
        with torch.inference_mode():
            net(image)
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return run


def conditions(options: argparse.Namespace) -> str:
    """Conditions needed to compare with another machine."""
    return (
        f"napari-embryo {__version__}; torchvision {torchvision.__version__}; "
        f"device {options.device}, float32; "
        f"torch {torch.__version__}, {torch.get_num_threads()} threads; Python {platform.python_version()} on "
        f"{platform.platform()}, {platform.machine()}; {options.repeats} rounds, {options.clock} clock"
    )


if __name__ == "__main__":
    main()
