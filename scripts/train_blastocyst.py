"""Train the bundled blastocyst networks; ``napari-embryo train`` will take this over.

    python scripts/train_blastocyst.py resanet OUT --data DIR --backbone resnet50.safetensors
    python scripts/train_blastocyst.py unet OUT --data DIR
    python scripts/train_blastocyst.py resanet OUT --data DIR --start A.safetensors --stages 288x320:100:4e-4

DIR holds ``annotated`` and ``incubator``: images with LabelMe files beside them. Each stage is size:steps:rate;
small pictures first, because a step at 160 x 176 costs a third of one at 288 x 320.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from torch import nn

from napari_embryo import __version__, data, models
from napari_embryo.models import checkpoint
from napari_embryo.settings import Preprocessing, ResANetSettings, TrainSettings, UNetSettings
from napari_embryo.train import train

VALIDATION_SHARE = 0.25
SPLIT_SEED = 0
STAGES = ("160x176:300:2e-3", "224x256:300:1e-3", "288x320:60:4e-4")
SETTINGS = {
    # The ImageNet weights at hand are He et al.'s own, hence "v1"; half the paper's dropout suits so short a schedule.
    "resanet": ResANetSettings(encoder="v1", dropout=0.2),
    "unet": UNetSettings(base_channels=16),
}


def samples_of(folder: Path) -> tuple[list[data.Sample], list[data.Sample]]:
    """Training and validation samples, split by embryo within each source."""
    samples = [s for source in ("annotated", "incubator") for s in data.read_labelme_folder(folder / source)]
    return data.split_by_embryo(samples, VALIDATION_SHARE, SPLIT_SEED)


def first_model(args: argparse.Namespace) -> nn.Module:
    if args.start:
        return checkpoint.load(args.start).model
    model = models.build(SETTINGS[args.family])
    if args.family == "resanet":
        model.encoder.load(args.backbone)
    return model


def provenance(args: argparse.Namespace, samples: list[data.Sample]) -> dict[str, object]:
    return {
        "program": f"napari-embryo {__version__}",
        "stages": list(args.stages),
        "split": {"seed": SPLIT_SEED, "validation share": VALIDATION_SHARE, "trained on everything": args.everything},
        "images": {source: sum(s.source == source for s in samples) for source in sorted({s.source for s in samples})},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", choices=sorted(SETTINGS))
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--backbone", type=Path)
    parser.add_argument("--start", type=Path, help="go on from this checkpoint")
    parser.add_argument("--stages", nargs="+", default=STAGES)
    parser.add_argument("--everything", action="store_true", help="train on the validation embryos too")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.family == "resanet" and not (args.start or args.backbone):
        parser.error("resanet starts from ImageNet weights: give --backbone, or a checkpoint with --start")
    training, validation = samples_of(args.data)
    chosen = training + validation if args.everything else training
    model = first_model(args)
    for number, stage in enumerate(args.stages):
        run_stage(model, chosen, stage, args, number)


def run_stage(model: nn.Module, samples: list[data.Sample], stage: str, args: argparse.Namespace, number: int) -> None:
    size, steps, rate = stage.split(":")
    height, width = map(int, size.split("x"))
    preprocessing = Preprocessing(height=height, width=width)
    settings = TrainSettings(
        steps=int(steps),
        learning_rate=float(rate),
        encoder_rate=0.2 if args.family == "resanet" else 1.0,
        seed=args.seed + number,
    )
    info = checkpoint.CheckpointInfo(
        model=SETTINGS[args.family], preprocessing=preprocessing, provenance=provenance(args, samples)
    )
    # Incubator images are few and the hardest: each is seen twice as often.
    seen = samples + [s for s in samples if s.source == "incubator"]
    start, losses = time.perf_counter(), []
    for progress in train(model, seen, preprocessing, settings):
        losses.append(list(progress.item.losses.values()))
        if progress.done % 10 == 0:
            mean = " ".join(f"{value:.3f}" for value in np.mean(losses[-10:], axis=0))
            print(f"{stage} step {progress.done}: bce, dice {mean}; {time.perf_counter() - start:.0f} s", flush=True)
        if progress.done % 100 == 0 or progress.done == progress.total:
            checkpoint.save(args.out / "last.safetensors", model, info)


if __name__ == "__main__":
    main()
