"""Training: what is told, what is learned, what repeats, what goes on after a power cut, what stops it."""

import csv
import math
import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from napari_embryo import models, predict
from napari_embryo.augment import TrainingSet
from napari_embryo.data import Sample
from napari_embryo.families import BLASTOCYST_CLASSES, ResANetSettings
from napari_embryo.families import UNetSettings as UNet
from napari_embryo.models import checkpoint
from napari_embryo.notes import Note
from napari_embryo.settings import Augmentation, DataSettings, Preprocessing, Recipe, SegmentSettings, TrainSettings
from napari_embryo.stream import Epoch, Finished, Step
from napari_embryo.synthetic import draw_blastocyst
from napari_embryo.train import engine, loader, optim, run, stopped, train
from napari_embryo.train import run_state as state_files
from napari_embryo.train.engine import Learner, part_sizes

TINY = UNet(base_channels=4)
PRE = Preprocessing(height=48, width=64)


def drawn(seeds: Sequence[int], source: str = "drawn") -> list[Sample]:
    pictures = [(seed, draw_blastocyst(seed, (64, 80))) for seed in seeds]
    return [Sample.of(f"e{seed}", d.image, d.stack(BLASTOCYST_CLASSES), source=source) for seed, d in pictures]


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return drawn(range(6))


@pytest.fixture(scope="module")
def validation() -> list[Sample]:
    return drawn(range(10, 13), "kept aside")


def redrawn(seed: int) -> Sample:
    """The same name, another drawing: one pixel."""
    truth = drawn([seed])[0].read()
    masks = truth.masks.copy()
    masks[0, 0, 0] = ~masks[0, 0, 0]
    return Sample.of(f"e{seed}", truth.image, masks, source="drawn")


def recipe(
    *, repeats: dict[str, int] | None = None, augmentation: Augmentation | None = None, **training: Any
) -> Recipe:
    chosen = {"epochs": 2, "batch_size": 2, "encoder_rate": 1.0, "precision": "float32", "device": "cpu", **training}
    return Recipe(
        start="random",
        model=TINY,
        preprocessing=PRE,
        data=DataSettings(repeats=repeats or {}),
        augmentation=augmentation or Augmentation(),
        training=TrainSettings.model_validate(chosen),
    )


def tiny(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return models.build(TINY)


class Parts(nn.Module):
    """Encoder, decoder and head with batch normalization and dropout in each."""

    def __init__(self, classes: tuple[str, ...] = BLASTOCYST_CLASSES) -> None:
        super().__init__()
        self.settings = UNet(base_channels=4, classes=classes)
        self.encoder, self.decoder = (
            nn.Sequential(nn.Conv2d(i, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout2d(0.2)) for i in (1, 4)
        )
        self.head = nn.Conv2d(4, len(classes), 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.head(self.decoder(self.encoder(x)))}


def parts(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return Parts()


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def finish(running: Any) -> tuple[list[Any], Finished]:
    """Everything told, and the outcome."""
    told = []
    while True:
        try:
            told.append(next(running))
        except StopIteration as end:
            return told, end.value


def epochs(told: Sequence[Any]) -> list[Epoch]:
    return [p.item for p in told if isinstance(p.item, Epoch)]


def rows(folder: Path) -> list[dict[str, str]]:
    """The history without the clock."""
    with (folder / "history.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


# --- what is told and written ---------------------------------------------------------------------------------------


def test_steps_epochs_and_files(samples: list[Sample], validation: list[Sample], tmp_path: Path) -> None:
    model = tiny()
    said = {"data": "drawn"}
    told, outcome = finish(train(model, samples, validation, recipe(), tmp_path, provenance=said))
    assert [type(p.item) for p in told] == 2 * [Step, Step, Step, Epoch]
    assert [p.done for p in told] == [1, 2, 3, 3, 4, 5, 6, 6]
    assert {p.total for p in told} == {6}
    for progress in told:
        if isinstance(progress.item, Step):
            assert set(progress.item.losses) == {"bce", "dice"}
            assert progress.item.seconds > 0
    first = epochs(told)[0]
    steps = [p.item.losses["dice"] for p in told[:3]]
    assert first.train["dice"] == pytest.approx(np.mean(steps))
    assert set(first.validation) == {"bce", "dice"}
    assert set(first.scores) == {"IoU ICM", "IoU TE", "IoU ZP"}
    assert [score for _, score in first.worst] == sorted(score for _, score in first.worst)
    assert {name for name, _ in first.worst} == {f"kept aside/e{number}" for number in (10, 11, 12)}
    assert list(rows(tmp_path)[0]) == [
        "epoch", "learning_rate", "train bce", "train dice", "validation bce", "validation dice",
        "IoU ICM", "IoU TE", "IoU ZP", "score", "best",
    ]  # fmt: skip
    assert [float(row["validation dice"]) for row in rows(tmp_path)] == [e.validation["dice"] for e in epochs(told)]
    assert outcome.reason == "finished"
    assert (outcome.epochs, outcome.last, outcome.best) == (
        2, tmp_path / "last.safetensors", tmp_path / "best.safetensors",
    )  # fmt: skip
    last = checkpoint.load(outcome.last)
    assert last.info.provenance["data"] == "drawn"
    x = torch.randn(1, 1, 48, 64)
    with torch.inference_mode():
        expected = model.eval()(x)["logits"]
        assert torch.equal(last.model.to(memory_format=torch.channels_last)(x)["logits"], expected)
    assert {path.name for path in tmp_path.iterdir()} == {
        "last.safetensors", "best.safetensors", "state.safetensors", "history.csv",
    }  # fmt: skip


def test_the_validation_numbers_are_those_of_the_saved_network(
    samples: list[Sample], validation: list[Sample], tmp_path: Path
) -> None:
    """Recomputed picture by picture from the file, with NumPy."""
    young = replace(validation[0], load=_without_icm)
    told, outcome = finish(train(tiny(), samples, [young, *validation[1:]], recipe(epochs=1), tmp_path))
    model = checkpoint.load(outcome.last).model
    items = TrainingSet([young, *validation[1:]], PRE)
    ious, losses = [], []
    for item in (items[i] for i in range(3)):
        with torch.inference_mode():
            logits = model(item["image"][None])["logits"][0].double().numpy()
        p, g, valid = 1 / (1 + np.exp(-logits)), item["masks"].numpy().astype(float), item["valid"].numpy() > 0
        entropy = [-np.log(np.where(g[c] > 0, p[c], 1 - p[c]))[valid[0]].mean() for c in range(3)]
        losses += [entropy[c] for c in range(3) if item["known"][c]]
        found, truth = (logits >= 0) & valid, (g > 0) & valid
        ious.append(
            [
                (f & t).sum() / (f | t).sum() if k else np.nan
                for f, t, k in zip(found, truth, item["known"], strict=True)
            ]
        )
    epoch = epochs(told)[0]
    assert list(epoch.scores.values()) == pytest.approx(np.nanmean(ious, axis=0), abs=2e-3)
    assert epoch.validation["bce"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert dict(epoch.worst)["kept aside/e10"] == pytest.approx(np.nanmean(ious[0]), abs=2e-3)


def _without_icm() -> Any:
    truth = drawn([10])[0].read()
    return replace(truth, known=np.array((False, True, True)))


def test_the_best_file_is_that_of_the_best_epoch(
    samples: list[Sample], validation: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores 0.2, 0.5, 0.4, 0.5: the second is the best, also after an equal one."""
    scripted(monkeypatch, [0.2, 0.5, 0.4, 0.5])
    told, outcome = finish(train(tiny(), samples, validation[:1], recipe(epochs=4), tmp_path))
    assert [e.best for e in epochs(told)] == [True, True, False, False]
    assert outcome.best_epoch == 2
    assert checkpoint.read_info(outcome.best).provenance["trained"]["epoch"] == 2
    assert checkpoint.read_info(outcome.last).provenance["trained"]["epoch"] == 4


def scripted(monkeypatch: pytest.MonkeyPatch, scores: Sequence[float]) -> None:
    coming = iter(scores)

    def score(outputs: dict[str, Tensor], targets: dict[str, Tensor], classes: Sequence[str]) -> dict[str, Tensor]:
        return {"IoU": torch.full((len(targets["image"]),), next(coming))}

    monkeypatch.setitem(models.NETWORKS, "unet", replace(models.NETWORKS["unet"], score=score))


@pytest.mark.parametrize(
    ("patience", "ran", "reason"), [(0, 5, "finished"), (1, 3, "early"), (2, 4, "early"), (9, 5, "finished")]
)
def test_patience(
    samples: list[Sample], validation: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    patience: int, ran: int, reason: str,
) -> None:  # fmt: skip
    scripted(monkeypatch, [0.2, 0.5, 0.4, 0.3, 0.1])
    run = recipe(epochs=5, patience=patience, batch_size=6)
    told, outcome = finish(train(tiny(), samples, validation[:1], run, tmp_path))
    assert (len(epochs(told)), outcome.epochs, outcome.best_epoch, outcome.reason) == (ran, ran, 2, reason)


def test_without_validation_the_latest_is_the_best(samples: list[Sample], tmp_path: Path) -> None:
    """The paper's protocol: the last checkpoint."""
    told, outcome = finish(train(tiny(), samples, [], recipe(epochs=3), tmp_path))
    assert outcome.best_epoch == 3
    assert epochs(told)[-1].scores == {}
    with pytest.raises(ValueError, match="patience needs validation"):
        next(train(tiny(), samples, [], recipe(patience=2), tmp_path))


@pytest.mark.parametrize("after", [1, 4], ids=["in the first epoch", "later"])
def test_stopping_keeps_the_best_and_the_present(
    samples: list[Sample], validation: list[Sample], tmp_path: Path, after: int
) -> None:
    model = tiny()
    running = train(model, samples, validation, recipe(epochs=9), tmp_path)
    steps = [p.item for p in islice((p for p in running if isinstance(p.item, Step)), after)]
    best = (tmp_path / "best.safetensors").read_bytes()
    running.close()
    present = checkpoint.load(tmp_path / "last.safetensors").model.state_dict()
    assert all(torch.equal(tensor, present[name]) for name, tensor in model.state_dict().items())
    outcome = stopped(tmp_path)
    assert (outcome.reason, outcome.epochs) == ("stopped", steps[-1].epoch - 1)
    if after == 4:
        assert outcome.best_epoch == 1
        assert outcome.best.read_bytes() == best
    else:
        assert outcome.best_epoch == 0
        assert checkpoint.load(outcome.best).info.provenance["trained"]["step"] == 1


# --- what is learned -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("optimizer", "expected"), [("adamw", 2 * (1 - 0.01 * 0.1)), ("adam", 2 - 0.01)])
def test_weight_decay_is_as_named(optimizer: str, expected: float) -> None:
    """Without a gradient, AdamW shrinks a weight by rate times decay; in Adam, L2 is a gradient like any other."""
    model = nn.ParameterDict({"w": nn.Parameter(torch.full((1,), 2.0))})
    settings = recipe(optimizer=optimizer, learning_rate=0.01, weight_decay=0.1).training
    stepper = optim.build_optimizer(model, settings)
    model["w"].grad = torch.zeros(1)
    stepper.step()
    assert model["w"].item() == pytest.approx(expected, abs=1e-6)


def test_a_few_pictures_are_learnt_by_heart(samples: list[Sample], tmp_path: Path) -> None:
    """The mean IoU of three pictures it was trained on."""
    still = Augmentation(
        flips=False, rotation=0, zoom_out=1, zoom_in=1, shift=0, shear=0, crop=0, photometric=0, invert=0, wells=0
    )
    run = recipe(epochs=8, batch_size=3, learning_rate=1e-2, augmentation=still, repeats={"drawn": 10})
    torch.manual_seed(0)
    model = models.build(UNet(base_channels=8))
    told, _ = finish(train(model, samples[:3], samples[:3], run, tmp_path))
    first, last = epochs(told)[0], epochs(told)[-1]
    assert first.score is not None
    assert last.score is not None
    assert first.score < 0.3
    assert last.score > 0.7
    assert last.train["dice"] < 0.6 * first.train["dice"]


ENCODER, DECODER, HEAD = (
    {"encoder.0.weight", "encoder.1.weight"},
    {"decoder.0.weight", "decoder.1.weight"},
    {"head.weight"},
)


@pytest.mark.parametrize(
    ("settings", "moving", "counting"),
    [
        ({"parts": "all"}, ENCODER | DECODER | HEAD, {"encoder", "decoder"}),
        ({"parts": "decoder"}, DECODER | HEAD, {"decoder"}),
        ({"parts": "head"}, HEAD, set()),
        ({"parts": "all", "encoder_rate": 0}, DECODER | HEAD, {"decoder"}),
        ({"parts": "all", "frozen_batch_norm": True}, ENCODER | DECODER | HEAD, set()),
        ({"parts": "decoder", "frozen_batch_norm": True}, DECODER | HEAD, set()),
    ],
    ids=lambda value: "+".join(sorted(value)) if isinstance(value, set) else str(value),
)
def test_what_learns(
    samples: list[Sample], tmp_path: Path, settings: dict[str, Any], moving: set[str], counting: set[str]
) -> None:
    """Parameters, and the running statistics of batch normalization."""
    model = parts()
    before = state(model)
    finish(train(model, samples, [], recipe(epochs=1, **settings), tmp_path))
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {name for name in changed if name.endswith("weight")} == moving
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert {name for name in changed if name.endswith(statistics)} == {
        f"{part}.1.{name}" for part in counting for name in statistics
    }


def test_nothing_is_left_to_chance_in_frozen_parts(samples: list[Sample]) -> None:
    """Their dropout is off: the same batch gives the same features in two steps."""
    model = parts()
    seen: list[Tensor] = []
    model.decoder.register_forward_hook(lambda *of: seen.append(of[2].detach().clone()))  # type: ignore[union-attr]
    student = Learner(model, recipe(parts="head").training, 2)
    for seed in (1, 2):
        student.learn(batch_of(samples[:2]), seed)
    assert torch.equal(*seen)


@pytest.mark.parametrize("share", [0.2, 1.0])
def test_the_encoder_learns_at_its_share_of_the_rate(samples: list[Sample], share: float) -> None:
    """Adam's first step moves every weight by the rate itself, whatever the gradient."""
    model = parts()
    before = state(model)
    Learner(model, recipe(encoder_rate=share, weight_decay=0).training, 2).learn(batch_of(samples[:2]), 0)
    moved = {n: float((t - before[n]).abs().max()) for n, t in model.state_dict().items()}
    assert moved["encoder.0.weight"] / moved["head.weight"] == pytest.approx(share, rel=0.02)


@pytest.mark.parametrize(
    ("model", "settings", "said"),
    [
        (tiny, {"parts": "decoder"}, "has no encoder"),
        (lambda: _Headless(), {"parts": "head"}, "has no head"),
        (tiny, {"loss_weights": {"dcie": 2.0}}, "dcie.*bce, dice"),
        (tiny, {"loss_weights": {"bce": 0, "dice": 0}}, "leaves out every loss"),
        (tiny, {"repeats": {"incubator": 3}}, "incubator.*come from drawn"),
    ],
)
def test_a_wish_that_cannot_be_met_is_refused(
    samples: list[Sample], tmp_path: Path, model: Callable[[], nn.Module], settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        next(train(model(), samples, [], recipe(**settings), tmp_path / "out"))
    assert not (tmp_path / "out").exists()


class _Headless(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.settings = TINY
        self.body = nn.Conv2d(1, 3, 1)


def test_nothing_to_learn_from_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sample"):
        next(train(tiny(), [], [], recipe(), tmp_path))


@pytest.mark.parametrize(
    ("weights", "expected"), [({}, (1.0, 1.0)), ({"dice": 3.0}, (1.0, 3.0)), ({"bce": 0.0}, (0.0, 1.0))]
)
def test_loss_weights(samples: list[Sample], weights: dict[str, float], expected: tuple[float, float]) -> None:
    """The gradient is that of the weighted sum."""
    batch = batch_of(samples[:2])
    model = parts().eval()
    losses = models.NETWORKS["unet"].loss(model(batch["image"]), batch)
    (expected[0] * losses["bce"] + expected[1] * losses["dice"]).backward()
    wanted = gradients(model)
    run = recipe(loss_weights=weights, frozen_batch_norm=True, clip_norm=0)
    assert_close(gradients_of_a_step(without_dropout(parts()), run.training, batch, 2), wanted)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def without_dropout(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.Dropout2d):
            module.p = 0
    return model


def gradients_of_a_step(
    model: nn.Module, settings: TrainSettings, batch: dict[str, Tensor], micro: int
) -> dict[str, Tensor]:
    student = Learner(model, settings, len(batch["image"]))
    student.micro = micro
    student.learn(batch, 0)
    return gradients(model)


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def batch_of(samples: Sequence[Sample], unknown: Sequence[int] = ()) -> dict[str, Tensor]:
    items = TrainingSet(samples, PRE)
    _, batch = next(loader.prepared(items, loader.in_order(len(samples), len(samples))))
    for i in unknown:
        batch["known"][i, :2] = False
    return batch


@pytest.mark.parametrize("micro", [1, 2, 3, 4])
def test_a_batch_in_parts_has_the_gradient_and_losses_of_the_whole(samples: list[Sample], micro: int) -> None:
    """Also where a class is unknown in some of its pictures, and the last part is smaller."""
    batch = batch_of(samples[:5], unknown=[0, 3])
    settings = recipe(frozen_batch_norm=True, batch_size=5, clip_norm=0).training
    whole = Learner(without_dropout(parts()), settings, 5)
    losses = whole.learn(batch, 0)
    split = Learner(without_dropout(parts()), settings, 5)
    split.micro = micro
    assert split.learn(batch, 0) == pytest.approx(losses, rel=1e-5)
    assert_close(gradients(split.model), gradients(whole.model))
    assert split.judge(batch)[0] == pytest.approx(whole.judge(batch)[0], rel=1e-3)


def mixed_family(monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses that are means over different things: over none of them, no number."""

    def loss(outputs: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
        each = torch.sigmoid(outputs["logits"])
        drawn = (each - targets["masks"].float()).square().mean((2, 3))[targets["known"]]
        ratio = (each.mean((1, 2, 3)) - 0.3).square()[targets["is_graded"]]
        return {"drawn": drawn.mean(), "graded": ratio.mean()}

    def counts(targets: dict[str, Tensor]) -> dict[str, float]:
        return {"drawn": float(targets["known"].sum()), "graded": float(targets["is_graded"].sum())}

    monkeypatch.setitem(models.NETWORKS, "unet", replace(models.NETWORKS["unet"], loss=loss))
    monkeypatch.setitem(models.NETWORKS, "unet", replace(models.NETWORKS["unet"], counts=counts))


@pytest.mark.parametrize("micro", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("is_graded", "unknown", "names"),
    [
        ((1, 0, 1, 1, 0), [1], {"drawn", "graded"}),
        ((0, 0, 0, 0, 1), [], {"drawn", "graded"}),
        ((0, 0, 0, 0, 0), [0, 1], {"drawn"}),
        ((1, 1, 0, 0, 1), [0, 1, 2, 3, 4], {"graded"}),
        ((0, 0, 0, 0, 0), [0, 1, 2, 3, 4], set()),
    ],
    ids=["both", "one graded", "none graded", "none drawn", "neither"],
)
def test_every_loss_is_a_mean_over_its_own_things(
    samples: list[Sample], monkeypatch: pytest.MonkeyPatch, micro: int,
    is_graded: Sequence[int], unknown: Sequence[int], names: set[str],
) -> None:  # fmt: skip
    """In parts as in one go; what is nowhere known is neither learned from nor told."""
    mixed_family(monkeypatch)
    batch = batch_of(samples[:5])
    batch["known"][list(unknown)] = False
    batch["is_graded"] = torch.tensor(is_graded, dtype=torch.bool)
    settings = recipe(frozen_batch_norm=True, batch_size=5, clip_norm=0).training
    whole, split = (Learner(without_dropout(parts()), settings, 5) for _ in range(2))
    split.micro = micro
    losses = whole.learn(batch, 0)
    assert losses.keys() == names
    assert split.learn(batch, 0) == pytest.approx(losses, rel=1e-5)
    assert_close(gradients(split.model), gradients(whole.model))
    judged = whole.judge(batch)[0]
    assert judged.keys() == names
    assert split.judge(batch)[0] == pytest.approx(judged, rel=1e-3)


def test_a_loss_is_told_where_something_counts_in_it(
    samples: list[Sample], validation: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Learned from drawings and grades, validated on drawings alone."""
    mixed_family(monkeypatch)
    item = TrainingSet.item

    def with_grades(self: TrainingSet, epoch: int, index: int) -> dict[str, Tensor]:
        return {**item(self, epoch, index), "is_graded": torch.tensor(self.samples[index].source == "drawn")}

    monkeypatch.setattr(TrainingSet, "item", with_grades)
    told, _ = finish(train(parts(), samples, validation, recipe(epochs=1), tmp_path))
    (epoch,) = epochs(told)
    assert epoch.train.keys() == {"drawn", "graded"}
    assert epoch.validation.keys() == {"drawn"}
    assert "validation graded" not in rows(tmp_path)[0]


@pytest.mark.parametrize(
    ("count", "size", "sizes"),
    [
        (5, 1, [1] * 5), (5, 2, [3, 2]), (5, 3, [3, 2]), (5, 4, [3, 2]), (5, 5, [5]), (4, 3, [2, 2]), (3, 2, [3]),
        (7, 2, [3, 2, 2]), (7, 3, [3, 2, 2]), (8, 3, [3, 3, 2]), (1, 4, [1]), (9, 8, [5, 4]),
    ],
)  # fmt: skip
def test_no_part_is_a_single_picture(count: int, size: int, sizes: list[int]) -> None:
    assert part_sizes(count, size) == sizes


def test_an_odd_batch_in_pairs_has_statistics(samples: list[Sample]) -> None:
    """ResA-Net's smallest map has a single pixel here: one picture alone has none."""
    torch.manual_seed(0)
    model = models.build(ResANetSettings(dropout=0))
    items = TrainingSet(samples[:5], Preprocessing(height=32, width=32))
    _, batch = next(loader.prepared(items, loader.in_order(5, 5)))
    student = Learner(model, recipe(batch_size=5).training, 5)
    student.micro = 2
    assert all(math.isfinite(loss) for loss in student.learn(batch, 0).values())
    tracked = [norm.num_batches_tracked for norm in optim.batch_norms(model)]
    assert {int(count) for count in tracked if count is not None} == {2}  # type: ignore[arg-type, call-overload]


@pytest.mark.parametrize("limit", [0.01, 1000])
def test_gradients_are_clipped_to_their_norm(samples: list[Sample], limit: float) -> None:
    found = gradients_of_a_step(parts(), recipe(clip_norm=limit).training, batch_of(samples[:2]), 2)
    free = gradients_of_a_step(parts(), recipe(clip_norm=0).training, batch_of(samples[:2]), 2)
    norm = math.sqrt(sum(float((g**2).sum()) for g in free.values()))
    assert math.sqrt(sum(float((g**2).sum()) for g in found.values())) == pytest.approx(min(limit, norm), rel=1e-3)


# --- how fast -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "warm_up"), [(3, 0.5), (4, 0.5), (40, 0.1), (40, 0.5), (301, 0.1), (301, 0.97)])
def test_one_cycle_is_torchs(steps: int, warm_up: float) -> None:
    settings = TrainSettings(warm_up=warm_up, learning_rate=1e-3)
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=1e-3)
    reference = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, steps, pct_start=warm_up)
    for step in range(steps):
        share, beta = optim.schedule(settings, step, steps)
        assert share * 1e-3 == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)
        assert beta == pytest.approx(optimizer.param_groups[0]["betas"][0], rel=1e-6)
        optimizer.step()
        if step + 1 < steps:
            reference.step()


@pytest.mark.parametrize("steps", [1, 2, 9, 10, 11, 20])
@pytest.mark.parametrize("schedule", ["one-cycle", "cosine", "constant"])
def test_any_number_of_steps_has_rates(steps: int, schedule: str) -> None:
    settings = TrainSettings.model_validate({"schedule": schedule})
    shares = [optim.schedule(settings, step, steps)[0] for step in range(steps)]
    assert all(0 < share <= 1 for share in shares)
    expected = {
        "constant": [1.0] * steps,
        "cosine": [(1 + math.cos(math.pi * i / steps)) / 2 for i in range(steps)],
    }
    if schedule in expected:
        assert shares == pytest.approx(expected[schedule])
    elif steps >= 9:
        assert max(shares) > 0.5
        assert shares[-1] < 1e-4


# --- which pictures come when ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "size", "sizes"), [(6, 2, [2, 2, 2]), (7, 2, [2, 2, 2]), (3, 8, [3]), (1, 4, [1]), (9, 4, [4, 4])]
)
def test_batches_are_whole(count: int, size: int, sizes: list[int]) -> None:
    visits = loader.epoch_of_visits(count, size, seed=3, epoch=1)
    assert [len(batch) for batch in visits] == sizes
    places = [i for batch in visits for _, i in batch]
    assert len(set(places)) == len(places)
    assert set(places) <= set(range(count))
    assert len(visits) == loader.steps_per_epoch(count, size)


def test_every_epoch_has_an_order_of_its_own() -> None:
    orders = {str([i for b in loader.epoch_of_visits(12, 4, s, e) for _, i in b]) for s in (0, 1) for e in (1, 2)}
    assert len(orders) == 4


def test_a_source_is_visited_as_often_as_it_is_told() -> None:
    a, b = drawn([1, 2], "many"), drawn([3], "few")
    assert [s.name for s in loader.visited([*a, *b], {"few": 3, "many": 1})] == ["e1", "e2", "e3", "e3", "e3"]


@pytest.mark.parametrize("workers", [1])
def test_what_comes_does_not_depend_on_who_prepares_it(samples: list[Sample], workers: int) -> None:
    items = TrainingSet(samples, PRE, Augmentation(), 7)
    visits = [b for epoch in (1, 2) for b in loader.epoch_of_visits(len(samples), 2, 7, epoch)]
    one, other = (list(loader.prepared(items, visits, n)) for n in (0, workers))
    assert [of for of, _ in one] == [of for of, _ in other] == visits
    for (_, found), (_, expected) in zip(one, other, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


def test_a_picture_is_read_for_its_digest_and_for_all_epochs(
    validation: list[Sample], samples: list[Sample], tmp_path: Path
) -> None:
    read: list[str] = []
    counted = [replace(s, load=partial(_counted, s, read)) for s in validation]
    finish(train(tiny(), samples, counted, recipe(epochs=3), tmp_path))
    assert sorted(read) == ["e10", "e10", "e11", "e11", "e12", "e12"]


def _counted(sample: Sample, read: list[str]) -> Any:
    read.append(sample.name)
    return sample.read()


def test_a_picture_that_has_gone_is_named(samples: list[Sample], tmp_path: Path) -> None:
    lost = replace(samples[0], load=_lost)
    with pytest.raises(FileNotFoundError, match=r"lost\.png"):
        list(train(tiny(), [lost, *samples[1:]], [], recipe(), tmp_path))


def _lost() -> Any:
    raise FileNotFoundError("lost.png: it has gone")


# --- what repeats ---------------------------------------------------------------------------------------------------


def test_a_seed_repeats_to_the_bit(samples: list[Sample], validation: list[Sample], tmp_path: Path) -> None:
    def run(name: str, seed: int) -> tuple[list[dict[str, str]], dict[str, Tensor]]:
        model = parts()
        for _ in train(model, samples, validation, recipe(seed=seed), tmp_path / name):
            torch.rand(3)  # what others do with chance does not matter
        return rows(tmp_path / name), state(model)

    (first, weights), (second, same), (other, _) = run("a", 0), run("b", 0), run("c", 1)
    assert first == second
    assert all(torch.equal(tensor, same[name]) for name, tensor in weights.items())
    assert first != other


SCRIPT = """
import os, random, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
import test_train as t

folder, chance, kills = Path(sys.argv[1]), random.Random(int(sys.argv[2])), 0
learn, judge = t.drawn(range(4)), t.drawn(range(10, 12))

def rest():
    resume = (folder / "state.safetensors").exists()
    t.finish(t.train(t.parts(99 if resume else 0), learn, judge, t.recipe(epochs=t.EPOCHS), folder, resume=resume))

def saves():
    return folder.is_dir() and any(name.endswith(".part") for name in os.listdir(folder))

while True:
    if not (child := os.fork()):
        try:
            rest()
            os._exit(0)
        finally:
            os._exit(1)
    if kills < t.KILLS:
        time.sleep(chance.uniform(0.0, 0.5))
        while kills % 2 and not saves() and os.waitpid(child, os.WNOHANG) == (0, 0):
            time.sleep(0.0002)
        time.sleep(chance.uniform(0.0, 0.003) if kills % 2 else 0)
        try:
            os.kill(child, signal.SIGKILL)
        except ProcessLookupError:
            break
    status = os.waitpid(child, 0)[1]
    if not os.WIFSIGNALED(status):
        sys.exit(os.waitstatus_to_exitcode(status))
    kills += 1
    print(kills, flush=True)
"""
EPOCHS, KILLS = 25, 5


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows knows neither fork nor SIGKILL")
def test_a_run_killed_again_and_again_goes_on_to_the_bit(tmp_path: Path) -> None:
    """At random moments, every second time while it saves; dropout, statistics, augmentation, momentum included."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums depend on how many threads share them; the killed run has one
    try:
        finish(train(parts(), drawn(range(4)), drawn(range(10, 12)), recipe(epochs=EPOCHS), tmp_path / "whole"))
    finally:
        torch.set_num_threads(threads)
    seed = random.randrange(10**6)
    script = SCRIPT.format(tests=str(Path(__file__).parent))
    words = [sys.executable, "-c", script, str(tmp_path / "killed"), str(seed)]
    done = subprocess.run(words, check=False, timeout=300, capture_output=True, text=True)
    assert done.returncode == 0, f"seed {seed}: {done.stderr}"
    assert len(done.stdout.split()) >= 3, f"seed {seed}: killed {done.stdout.split()} times"
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole"), f"seed {seed}"
    for name in ("best.safetensors", "last.safetensors"):
        expected, found = (load_file(tmp_path / run / name) for run in ("whole", "killed"))
        assert all(torch.equal(tensor, found[key]) for key, tensor in expected.items()), f"seed {seed}"


def test_a_stopped_run_goes_on_from_its_last_whole_epoch(
    samples: list[Sample], validation: list[Sample], tmp_path: Path
) -> None:
    finish(train(tiny(), samples, validation, recipe(epochs=3), tmp_path / "whole"))
    running = train(tiny(), samples, validation, recipe(epochs=3), tmp_path / "stopped")
    list(islice(running, 6))
    running.close()
    told, outcome = finish(train(tiny(5), samples, validation, recipe(epochs=3), tmp_path / "stopped", resume=True))
    assert [e.epoch for e in epochs(told)] == [2, 3]
    assert (told[0].done, told[0].total) == (4, 9)
    assert rows(tmp_path / "stopped") == rows(tmp_path / "whole")
    assert outcome.reason == "finished"
    again, outcome = finish(train(tiny(), samples, validation, recipe(epochs=3), tmp_path / "stopped", resume=True))
    assert again == []
    assert outcome.epochs == 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"run": recipe(batch_size=3)}, "training.batch_size: 2 then, 3 now"),
        ({"run": recipe(seed=4)}, "training.seed: 0 then, 4 now"),
        ({"run": recipe(repeats={"drawn": 2})}, "training images"),
        ({"run": recipe(augmentation=Augmentation(flips=False))}, "augmentation.flips: True then, False now"),
        ({"model": parts}, "another one|model"),
        ({"samples": drawn([0, 1, 2, 3, 4, 9])}, r"training images: 1 gone, such as drawn/e5, 1 new"),
        ({"samples": [*drawn(range(5)), redrawn(5)]}, r"\(image or annotation changed since: drawn/e5\)"),
        ({"samples": [redrawn(seed) for seed in range(6)]}, "changed .* drawn/e0, drawn/e1, drawn/e2 and 3 more"),
        ({"run": recipe(epochs=1)}, "for 2 epochs, but 1 were given; give as many or more"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_another_run_is_not_resumed(samples: list[Sample], tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    if changes.get("model") is parts:
        changes = {"model": lambda: models.build(UNet(base_channels=4, classes=("ICM", "TE", "B")))}
        said = "model.classes"
    finish(train(tiny(), samples, [], recipe(epochs=2), tmp_path))
    model = changes.get("model", tiny)()
    with pytest.raises(ValueError, match=said):
        next(train(model, changes.get("samples", samples), [], changes.get("run", recipe()), tmp_path, resume=True))


def test_a_run_from_before_a_way_to_alter_pictures_goes_on(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its state does not name what a later version brought, and what was never used."""
    identity = state_files.identity

    def of_before(*args: Any) -> Any:
        told = identity(*args)
        del told["augmentation"]["hide"]
        return told

    with monkeypatch.context() as patch:
        patch.setattr(state_files, "identity", of_before)
        start = train(tiny(), samples, [], recipe(), tmp_path)
        list(islice(start, 4))
        start.close()
    hiding = recipe(augmentation=Augmentation(hide=0.5))
    with pytest.raises(ValueError, match=r"augmentation\.hide: 0\.0 then, 0\.5 now"):
        finish(train(tiny(), samples, [], hiding, tmp_path, resume=True))
    assert finish(train(tiny(), samples, [], recipe(), tmp_path, resume=True))[1].epochs == 2


def test_more_epochs_than_at_first(samples: list[Sample], validation: list[Sample], tmp_path: Path) -> None:
    """The note is told once and kept; the rate of the epochs to come is that of the longer training."""
    finish(train(tiny(), samples, validation, recipe(epochs=2), tmp_path / "longer"))
    longer = partial(train, tiny(), samples, validation, recipe(epochs=4), tmp_path / "longer", resume=True)
    told, outcome = finish(longer())
    finish(train(tiny(), samples, validation, recipe(epochs=4), tmp_path / "whole"))
    assert [e.epoch for e in epochs(told)] == [3, 4]
    notes = [p.item for p in told if isinstance(p.item, Note)]
    said = "extending to 4 epochs instead of 2: from epoch 3 on, the learning rate is that of a run of 4 epochs"
    assert notes == [Note("info", said)]
    assert outcome.notes == (*notes,)
    rates = [[row["learning_rate"] for row in rows(tmp_path / name)[2:]] for name in ("longer", "whole")]
    assert rates[0] == rates[1]
    assert finish(longer())[0] == []


@pytest.mark.parametrize("changes", [{"workers": 1}, {"patience": 3}, {"device": "auto"}], ids=str)
def test_another_computer_may_go_on(
    samples: list[Sample], validation: list[Sample], tmp_path: Path, changes: dict[str, Any]
) -> None:
    running = train(tiny(), samples, validation, recipe(), tmp_path)
    list(islice(running, 5))
    running.close()
    run = recipe(**changes)
    assert len(epochs(finish(train(tiny(), samples, validation, run, tmp_path, resume=True))[0])) == 1


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        (None, FileNotFoundError, "no training to resume"),
        (lambda whole: whole[: len(whole) // 2], ValueError, "incomplete file"),
        (lambda whole: whole[:5], ValueError, "incomplete file"),
        (lambda whole: b"", ValueError, "incomplete file"),
    ],
    ids=["none", "half", "five bytes", "empty"],
)
def test_no_state_to_resume_from(
    samples: list[Sample], tmp_path: Path, content: Callable[[bytes], bytes] | None, error: type[Exception], said: str
) -> None:
    if content is not None:
        finish(train(tiny(), samples, [], recipe(epochs=1), tmp_path))
        path = tmp_path / "state.safetensors"
        path.write_bytes(content(path.read_bytes()))
    with pytest.raises(error, match=said):
        next(train(tiny(), samples, [], recipe(epochs=1), tmp_path, resume=True))


def test_an_ordinary_checkpoint_is_no_state(samples: list[Sample], tmp_path: Path) -> None:
    finish(train(tiny(), samples, [], recipe(epochs=1), tmp_path))
    (tmp_path / "state.safetensors").write_bytes((tmp_path / "last.safetensors").read_bytes())
    with pytest.raises(ValueError, match="not a training state"):
        next(train(tiny(), samples, [], recipe(epochs=1), tmp_path, resume=True))


# --- what stops it --------------------------------------------------------------------------------------------------


def nan_where_unknown(outputs: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
    whole = outputs["logits"].mean()
    return {"bce": whole if targets["known"].all() else whole * float("nan")}


def test_a_loss_that_is_no_number_names_its_picture(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = samples[0].read()
    culprit = Sample.of("culprit", truth.image, truth.masks, np.array((True, True, False)), source="drawn")
    monkeypatch.setitem(models.NETWORKS, "unet", replace(models.NETWORKS["unet"], loss=nan_where_unknown))
    run = recipe(epochs=3, batch_size=4)
    with pytest.raises(FloatingPointError, match=r"nan in epoch 1, step 1; it is that of culprit\. .*learning rate"):
        list(train(tiny(), [*samples[:3], culprit], [], run, tmp_path))


def test_a_network_that_diverged_keeps_what_it_was(samples: list[Sample], tmp_path: Path) -> None:
    """In memory what it was before the step, on disk what it was after the last epoch, which can be resumed."""
    model = tiny()
    seen: list[dict[str, Tensor]] = []

    def poison(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        seen.append(state(module))
        return (inputs[0] * (float("nan") if len(seen) == 6 else 1),)  # the first pass is the trial before training

    hook = model.register_forward_pre_hook(poison)
    said = r"epoch 2, step 2; it is that of none of the batch e\d, e\d on its own"
    with pytest.raises(FloatingPointError, match=said):
        list(train(model, samples, [], recipe(epochs=3), tmp_path))
    hook.remove()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, seen[5][name]), name
    last = checkpoint.load(tmp_path / "last.safetensors")
    assert last.info.provenance["trained"]["epoch"] == 1
    assert torch.equal(last.model.state_dict()["head.weight"], seen[4]["head.weight"])
    told, _ = finish(train(tiny(), samples, [], recipe(epochs=3), tmp_path, resume=True))
    assert [e.epoch for e in epochs(told)] == [2, 3]


def test_a_gradient_that_is_no_number_stops_too(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def steep(outputs: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"bce": (outputs["logits"] * 0).abs().sqrt().sum()}

    monkeypatch.setitem(models.NETWORKS, "unet", replace(models.NETWORKS["unet"], loss=steep))
    model = tiny()
    with pytest.raises(FloatingPointError, match="its gradient became"):
        list(train(model, samples, [], recipe(), tmp_path))
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())


# --- float16 --------------------------------------------------------------------------------------------------------


def scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    """float16 with scaled losses on a processor, which only lacks the speed."""
    monkeypatch.setattr(engine, "training_precision", lambda *_: "16-mixed")


def with_scale(model: nn.Module, exponent: int) -> Learner:
    student = Learner(model, recipe(batch_size=2).training, 2)
    student.load_scaler({**student.scaler_state(), "scale": 2.0**exponent})
    return student


def test_a_gradient_that_overflows_is_no_step(samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    """The scale halves until it fits; then it is learned, as much as without a scale."""
    scaled(monkeypatch)
    student, batch = with_scale(parts(), 30), batch_of(samples[:2])
    before = state(student.model)
    scales = []
    while torch.equal(student.model.state_dict()["head.weight"], before["head.weight"]):
        scales.append(student.scaler_state()["scale"])
        assert math.isfinite(student.learn(batch, 0)["dice"])
    assert len(scales) > 3
    assert scales == [2.0 ** (30 - i) for i in range(len(scales))]
    # Adam's first step: the rate itself.
    moved = float((student.model.state_dict()["head.weight"] - before["head.weight"]).abs().max())
    assert moved == pytest.approx(1e-3, rel=0.02)


def test_a_gradient_that_overflows_again_and_again_is_the_end(
    samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    scaled(monkeypatch)
    student, batch = with_scale(parts(), 120), batch_of(samples[:2])
    for _ in range(engine.SKIPPED_AT_MOST):
        student.learn(batch, 0)
    with pytest.raises(engine.NotFiniteError, match=r"gradient became .* in 21 steps in a row"):
        student.learn(batch, 0)


def test_the_scale_goes_on_where_it_was(
    samples: list[Sample], validation: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scaled(monkeypatch)
    start = engine.MixedPrecision

    def high(precision: Any, device: str) -> Any:
        return start(precision, device, torch.amp.GradScaler(device, init_scale=2.0**30))

    monkeypatch.setattr(engine, "MixedPrecision", high)
    finish(train(parts(), samples, validation, recipe(epochs=3), tmp_path / "whole"))
    running = train(parts(), samples, validation, recipe(epochs=3), tmp_path / "stopped")
    list(islice(running, 6))
    running.close()
    finish(train(parts(5), samples, validation, recipe(epochs=3), tmp_path / "stopped", resume=True))
    assert rows(tmp_path / "stopped") == rows(tmp_path / "whole")
    found, expected = (load_file(tmp_path / name / "last.safetensors") for name in ("stopped", "whole"))
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())


@pytest.mark.parametrize(
    ("precision", "device", "native", "expected"),
    [
        ("auto", "cuda", True, "bf16-mixed"), ("auto", "cuda", False, "16-mixed"), ("auto", "mps", False, None),
        ("float16", "cuda", True, "16-mixed"), ("bfloat16", "cpu", False, "bf16-mixed"),
        ("float32", "cuda", True, None),
    ],
)  # fmt: skip
def test_what_a_precision_is_trained_in(
    monkeypatch: pytest.MonkeyPatch, precision: Any, device: str, native: bool, expected: str | None
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *, including_emulation: native)
    assert engine.training_precision(precision, torch.device(device)) == expected


@pytest.mark.parametrize(
    ("precision", "device", "native", "expected"),
    [
        ("float16", "cuda", False, torch.float16), ("float16", "mps", False, torch.float16),
        ("float16", "cpu", False, None), ("auto", "cuda", False, None), ("auto", "cuda", True, torch.bfloat16),
        ("bfloat16", "cpu", False, torch.bfloat16), ("float32", "cuda", True, None),
    ],
)  # fmt: skip
def test_what_a_precision_is_used_in(
    monkeypatch: pytest.MonkeyPatch, precision: Any, device: str, native: bool, expected: torch.dtype | None
) -> None:
    """float16 on the processor: only where it takes over from a card that is full."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *, including_emulation: native)
    assert predict.half_type(precision, torch.device(device)) == expected


def test_float16_is_refused_for_use_on_a_processor(samples: list[Sample], tmp_path: Path) -> None:
    _, outcome = finish(train(tiny(), samples, [], recipe(epochs=1), tmp_path))
    settings = SegmentSettings(family="unet", device="cpu", precision="float16")
    with pytest.raises(ValueError, match=r"'float16' was given, but processors .*use 'bfloat16' or 'float32'"):
        predict.Predictor(checkpoint.load(outcome.last), settings)


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_float16_is_refused_where_it_cannot_be_trained_in(device: str) -> None:
    with pytest.raises(ValueError, match=r"'float16'.*use 'bfloat16' or 'float32'"):
        engine.training_precision("float16", torch.device(device))


class Greedy(Parts):
    """Runs out of memory above so many pictures at a time."""

    def __init__(self, most: int, error: Callable[[], Exception]) -> None:
        super().__init__()
        self.most, self.error = most, error

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        if len(x) > self.most:
            self.encoder(x)  # the running statistics have moved when it happens
            raise self.error()
        return super().forward(x)


OUT_OF_MEMORY = {
    "cuda": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "cpu": lambda: RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"),
}


@pytest.mark.parametrize("error", OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY)
def test_out_of_memory_goes_on_in_smaller_parts(
    samples: list[Sample], validation: list[Sample], tmp_path: Path, error: Callable[[], Exception]
) -> None:
    torch.manual_seed(0)
    greedy = without_dropout(Greedy(1, error))
    run = recipe(batch_size=6, frozen_batch_norm=True)
    told, outcome = finish(train(greedy, samples, validation, run, tmp_path / "greedy"))
    notes = [p.item for p in told if isinstance(p.item, Note)]
    assert notes[:2] == [Note("warning", f"out of memory on cpu: splitting batches into parts of {n}") for n in (3, 1)]
    assert "batch normalization keeps its statistics" in notes[2].text
    assert list(outcome.notes) == notes
    plenty, _ = finish(train(without_dropout(parts()), samples, validation, run, tmp_path / "plenty"))
    for found, expected in zip(epochs(told), epochs(plenty), strict=True):
        assert found.train == pytest.approx(expected.train, rel=1e-4)
        assert found.scores == pytest.approx(expected.scores, abs=1e-3)


def test_out_of_memory_for_one_picture_is_the_end(samples: list[Sample], tmp_path: Path) -> None:
    model = Greedy(0, OUT_OF_MEMORY["cuda"])
    before = state(model)
    with pytest.raises(MemoryError, match="for a single image; choose a smaller input"):
        list(train(model, samples, [], recipe(), tmp_path))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_any_other_error_is_not_taken_for_it(samples: list[Sample], tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        list(train(Greedy(1, lambda: RuntimeError("mat1 and mat2 do not fit")), samples, [], recipe(), tmp_path))


@pytest.mark.parametrize("count", [1, 2])
def test_a_single_picture_keeps_the_statistics(samples: list[Sample], tmp_path: Path, count: int) -> None:
    model = parts()
    told, _ = finish(train(model, samples[:count], [], recipe(epochs=2, batch_size=4), tmp_path))
    said = [p.item for p in told if isinstance(p.item, Note)]
    assert any("batch normalization" in note.text for note in said) is (count == 1)
    assert bool(model.encoder[1].num_batches_tracked) is (count > 1)  # type: ignore[union-attr, index]
    assert len(epochs(told)) == 2


def test_a_full_disk_says_so_and_leaves_the_files_whole(
    samples: list[Sample], validation: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = train(tiny(), samples, validation, recipe(epochs=3), tmp_path)
    list(islice(running, 4))
    before = {path.name: path.read_bytes() for path in tmp_path.glob("[!.]*")}

    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(
        OSError, match=r"the weights of epoch 2 could not be saved \(No space left on device\).*resume"
    ) as caught:
        list(running)
    assert caught.value.errno == 28
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    monkeypatch.undo()
    told, _ = finish(train(tiny(), samples, validation, recipe(epochs=3), tmp_path, resume=True))
    assert [e.epoch for e in epochs(told)] == [2, 3]


def test_leftovers_of_a_killed_run_are_cleared(samples: list[Sample], tmp_path: Path) -> None:
    (tmp_path / ".state.safetensors.0123abcd.part").write_bytes(b"half")
    (tmp_path / "notes.part").write_bytes(b"mine")
    finish(train(tiny(), samples, [], recipe(epochs=1), tmp_path))
    assert not list(tmp_path.glob(".*.part"))
    assert (tmp_path / "notes.part").exists()


def test_the_start_is_judged_and_a_worse_end_is_said(
    samples: list[Sample], validation: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first judgment is that of the start; no epoch comes up to it."""
    scores = iter([0.9, 0.5, 0.6])
    monkeypatch.setattr(run.Run, "_judge", lambda _: ({"dice": 0.1}, {"IoU ICM": next(scores)}, ()))
    asked = recipe(epochs=2).model_copy(update={"start": "bundled"})
    told, outcome = finish(train(tiny(), samples, validation, asked, tmp_path))
    notes = [p.item for p in told if isinstance(p.item, Note)]
    assert notes == [Note("info", "before training: IoU ICM 0.900; mean 0.900")]
    assert outcome.best_epoch == 2
    assert "the best epoch scores 0.600, the start 0.900" in outcome.notes[-1].text
    assert outcome.notes[-1].level == "warning"
