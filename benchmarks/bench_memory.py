"""Check that memory stays flat over a long time-lapse and no frame is computed or read twice; print one table.

Each length runs in a separate process: it reads a folder of frames as written by an incubator, segments it, and writes
the results. Peak resident memory includes Python, torch and the network, so the amount on top of these is shown too.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from PIL import Image
from rich.console import Console
from rich.table import Table

GOAL = 1.3
DRAWN = 5


def main() -> None:
    """Run every length and print the table; in a child process, run one length."""
    options = parse()
    if options.child:
        print(json.dumps(run(options.child, options.weights)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        results = [measure(Path(scratch), n, options) for n in options.frames]
    report(results, options)


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--frames", type=int, nargs="+", default=(10, 285), help="numbers of frames; the first is the reference"
    )
    parser.add_argument("--side", type=int, default=500, help="height and width of a frame (default 500)")
    parser.add_argument("--weights", default="bundled", help="'bundled', a checkpoint, or 'random'")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(scratch: Path, frames: int, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one length in a separate process."""
    folder = write_frames(scratch / f"frames_{frames}", frames, options.side)
    command = [sys.executable, __file__, "--child", str(folder), "--weights", options.weights]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return {"frames": frames, **json.loads(done.stdout.splitlines()[-1])}


def write_frames(folder: Path, frames: int, side: int) -> Path:
    """Write a few drawn embryos repeatedly under an incubator's file names."""
    from napari_embryo.synthetic import draw_blastocyst

    drawn = [draw_blastocyst(seed, (side, side), "incubator").image for seed in range(min(frames, DRAWN))]
    folder.mkdir()
    for i in range(frames):
        picture = Image.fromarray(drawn[i % len(drawn)])
        picture.save(folder / f"D2013.01.28_S0717_I132_WELL7_RUN{i + 1}.png", compress_level=1)
    return folder


def run(folder: Path, weights: str) -> dict[str, Any]:
    """Segment one time-lapse; measure memory, forward passes and frame reads."""
    import torch

    from napari_embryo import io, models, pipeline
    from napari_embryo.families import ResANetSettings
    from napari_embryo.image import EmbryoImage
    from napari_embryo.models import checkpoint
    from napari_embryo.predict import Predictor
    from napari_embryo.settings import Preprocessing, SegmentSettings

    settings = SegmentSettings(weights=weights)
    try:
        predictor = pipeline.load_predictor(settings)
    except FileNotFoundError:
        if weights not in ("random", checkpoint.BUNDLED):
            raise
        torch.manual_seed(0)
        info = checkpoint.CheckpointInfo(model=ResANetSettings(), preprocessing=Preprocessing())
        predictor = Predictor(checkpoint.Checkpoint(models.build(info.model).eval(), info, "random"), settings)
    passes: list[int] = []
    predictor.model.register_forward_pre_hook(lambda _, inputs: passes.append(len(inputs[0])))
    (image,) = io.open_plan(io.plan_path(folder))
    counted, reads = counting(image)
    out = folder.parent / f"{folder.name}_results"
    out.mkdir()
    before, start = psutil.Process().memory_info().rss, time.perf_counter()
    assert isinstance(counted, EmbryoImage)
    done = sum(isinstance(p.item, pipeline.PlaneResult) for p in pipeline.segment_to_files(counted, predictor, out))
    return {
        "done": done,
        "passes": sum(passes),
        "reads": sum(reads),
        "seconds": time.perf_counter() - start,
        "before": before,
        "peak": peak(),
        "weights": f"{settings.weights} ({predictor.sha256[:12]})",
        "device": f"{predictor.device}, torch {torch.__version__}, {torch.get_num_threads()} threads",
    }


def counting(image: Any) -> tuple[Any, list[int]]:
    """The same time-lapse, counting every frame that is read."""
    reads: list[int] = []

    def note(block: Any) -> Any:
        reads.append(len(block))
        return block

    counted = image.data.map_blocks(note, dtype=image.data.dtype, meta=image.data._meta)
    return image.with_data(counted), reads


def peak() -> int:
    """Largest resident memory of this process so far, in bytes."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(most) if sys.platform == "darwin" else int(most) * 1024


def report(results: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Print the table and the conditions."""
    yardstick = results[0]
    table = Table(title=f"Time-lapses of {options.side} x {options.side} pixels")
    for column in ("frames", "done", "reads", "forward", "s/frame", "peak MiB", "ratio", "on top MiB", "ratio on top"):
        table.add_column(column, justify="right")
    for one in results:
        on_top, least = one["peak"] - one["before"], yardstick["peak"] - yardstick["before"]
        table.add_row(
            *(str(one[key]) for key in ("frames", "done", "reads", "passes")),
            f"{one['seconds'] / one['frames']:.2f}",
            f"{one['peak'] / 2**20:.0f}",
            f"{one['peak'] / yardstick['peak']:.2f}",
            f"{on_top / 2**20:.0f}",
            f"{on_top / least:.2f}",
        )
    console = Console(width=110, highlight=False)
    console.print(table)
    console.print(
        f"Goal: ratio at most {GOAL}. 'forward' counts images through the network: frames, and the closer looks at "
        "small embryos. 'reads' beyond the frames are the few that the overlay shows. 'on top' is the memory "
        "allocated after the network was loaded."
    )
    console.print(
        f"weights {results[-1]['weights']}; {results[-1]['device']}; "
        f"Python {platform.python_version()} on {platform.platform()}"
    )


if __name__ == "__main__":
    main()
