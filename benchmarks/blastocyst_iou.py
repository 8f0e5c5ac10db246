"""IoU on embryos not trained on, one row per checkpoint, source and class.

    python benchmarks/blastocyst_iou.py --data DIR CHECKPOINT [CHECKPOINT ...] [--csv FILE]

DIR holds ``annotated``, ``incubator`` (the validation part of the split in ``scripts/train_blastocyst.py`` counts) and
``expert``. IoU at the image's own size: mean over images, standard deviation, 95 % bootstrap interval over embryos.
"""

import argparse
import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd

from napari_embryo import data, evaluate, predict
from napari_embryo.models import checkpoint
from napari_embryo.settings import SegmentSettings


def training_script() -> ModuleType:
    """The script next door, for its split."""
    path = Path(__file__).parents[1] / "scripts" / "train_blastocyst.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def scores(weights: str, samples: list[data.Sample], looks: int) -> pd.DataFrame:
    loaded = checkpoint.load(weights)
    predict.LOOK_AGAIN_BELOW = predict.LOOK_AGAIN_BELOW if looks == 2 else 0.0
    predictor = predict.Predictor(loaded, SegmentSettings(batch_size=1, maps=()))

    def masks(image: np.ndarray) -> np.ndarray:
        return next(predictor.predict([image])).segmentation.masks

    return evaluate.score(samples, masks, predictor.classes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--looks", type=int, choices=(1, 2), default=2, help="1: never crop to the embryo")
    parser.add_argument("--csv", type=Path, help="write the row of every image and class there")
    args = parser.parse_args()
    _, validation = training_script().samples_of(args.data)
    samples = validation + data.read_mask_files(args.data / "expert")
    tables = [scores(weights, samples, args.looks).assign(weights=weights) for weights in args.checkpoints]
    everything = pd.concat(tables)
    if args.csv:
        everything.to_csv(args.csv, index=False)
    with pd.option_context("display.width", 200, "display.max_columns", 20, "display.float_format", "{:.3f}".format):
        print(evaluate.summary(everything, ["weights", "source", "class"]).to_string(index=False))
        by_source = everything.groupby(["weights", "source"])["iou"].mean()
        print("\nmean IoU over classes\n" + by_source.to_string())


if __name__ == "__main__":
    main()
