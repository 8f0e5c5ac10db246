"""Training on a page: what is yielded, what repeats, what is learnt, what stops it."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from napari_embryo import models
from napari_embryo.data import Sample
from napari_embryo.models import checkpoint
from napari_embryo.settings import BLASTOCYST_CLASSES, Preprocessing, TrainSettings, UNetSettings
from napari_embryo.synthetic import draw_blastocyst
from napari_embryo.train import Step, train

PRE = Preprocessing(height=64, width=64)
TINY = UNetSettings(base_channels=8)


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    drawn = [(f"e{seed}", draw_blastocyst(seed, (64, 64))) for seed in range(4)]
    return [Sample(n, n, "drawn", d.image, d.stack(BLASTOCYST_CLASSES), np.ones(3, bool)) for n, d in drawn]


def tiny(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return models.build(TINY)


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_a_step_is_yielded_for_every_step(samples: list[Sample]) -> None:
    steps = list(train(tiny(), samples, PRE, TrainSettings(steps=4, batch_size=2)))
    assert [(p.done, p.total) for p in steps] == [(i, 4) for i in range(1, 5)]
    for progress in steps:
        assert isinstance(progress.item, Step)
        assert set(progress.item.losses) == {"bce", "dice"}
        assert np.isfinite(list(progress.item.losses.values())).all()
        assert progress.item.seconds > 0
        assert "bce" in progress.message
        assert "dice" in progress.message


def test_a_seed_repeats_to_the_bit(samples: list[Sample]) -> None:
    def run(seed: int) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
        model = tiny()
        losses = [p.item.losses for p in train(model, samples, PRE, TrainSettings(steps=3, batch_size=2, seed=seed))]
        return losses, state(model)

    (losses, weights), (again, same), (other, _) = run(0), run(0), run(1)
    assert losses == again
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    assert losses != other


@pytest.mark.parametrize("steps", [1, 2, 9, 10, 11, 20])
def test_any_number_of_steps_rises_and_falls(samples: list[Sample], steps: int) -> None:
    model = _Dot()
    rates = [p.item.learning_rate for p in train(model, samples, PRE, TrainSettings(steps=steps, batch_size=2))]
    assert len(rates) == steps
    assert max(rates) <= 1e-3 * (1 + 1e-9)
    assert rates[-1] <= max(rates)
    if steps >= 9:
        assert max(rates) > 5e-4
        assert rates[-1] < 1e-4


def test_the_loss_falls_on_drawn_embryos(samples: list[Sample]) -> None:
    """On average below the best of the first steps."""
    losses = [
        sum(p.item.losses.values())
        for p in train(tiny(), samples, PRE, TrainSettings(steps=40, batch_size=4, learning_rate=1e-2))
    ]
    assert np.mean(losses[-5:]) < min(losses[:5])


def test_fewer_samples_than_a_batch_still_train(samples: list[Sample]) -> None:
    assert len(list(train(tiny(), samples[:1], PRE, TrainSettings(steps=2, batch_size=3)))) == 2


def test_nothing_to_learn_from_is_refused() -> None:
    with pytest.raises(ValueError, match="sample"):
        next(train(tiny(), [], PRE, TrainSettings(steps=1)))


def test_stopping_leaves_a_model_that_can_be_used_and_saved(samples: list[Sample], tmp_path: Path) -> None:
    model = tiny()
    before = state(model)
    running = train(model, samples, PRE, TrainSettings(steps=50, batch_size=2))
    assert len(list(islice(running, 2))) == 2
    running.close()
    assert any(not torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    checkpoint.save(tmp_path / "a.safetensors", model, checkpoint.CheckpointInfo(model=TINY, preprocessing=PRE))
    loaded = checkpoint.load(tmp_path / "a.safetensors").model.to(memory_format=torch.channels_last)
    x = torch.randn(1, 1, 64, 64)
    with torch.inference_mode():
        expected = model.eval()(x)["logits"]
        assert torch.isfinite(expected).all()
        assert torch.equal(loaded(x)["logits"], expected)


Loss = Callable[[dict[str, Tensor], dict[str, Tensor]], dict[str, Tensor]]


def nan_where_unknown(outputs: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
    whole = outputs["logits"].mean()
    return {"bce": whole if targets["known"].all() else whole * float("nan")}


def test_a_loss_that_is_no_number_names_its_samples_and_spares_the_model(
    samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    culprit = Sample("culprit", "c", "drawn", samples[0].image, samples[0].masks, np.zeros(3, bool))
    monkeypatch.setitem(models.LOSSES, "unet", nan_where_unknown)
    model = tiny()
    with pytest.raises(FloatingPointError, match=r"nan on the batch .*culprit.*lower the learning rate") as caught:
        list(train(model, [*samples[:3], culprit], PRE, TrainSettings(steps=4, batch_size=2)))
    assert sum(name in str(caught.value) for name in ("e0", "e1", "e2", "culprit")) == 2
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())


def test_a_network_that_diverged_keeps_what_it_was_before_the_step(samples: list[Sample]) -> None:
    """Weights and running statistics: a checkpoint saved after the error must still compute."""
    model = tiny()
    seen: list[dict[str, Tensor]] = []

    def poison(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        seen.append(state(module))
        return (inputs[0] * (float("nan") if len(seen) == 3 else 1),)

    model.register_forward_pre_hook(poison)
    with pytest.raises(FloatingPointError):
        list(train(model, samples, PRE, TrainSettings(steps=5, batch_size=2)))
    assert len(seen) == 3
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, seen[-1][name]), name


class _Dot(nn.Module):
    """An encoder and a head of one convolution each."""

    def __init__(self) -> None:
        super().__init__()
        self.settings = TINY
        self.encoder = nn.Conv2d(1, 4, 1)
        self.head = nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.head(self.encoder(x))}


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_the_encoder_learns_at_its_share_of_the_rate(samples: list[Sample], share: float) -> None:
    """Adam's first step moves every weight by the rate itself, whatever the gradient."""
    torch.manual_seed(0)
    model = _Dot()
    before = state(model)
    next(train(model, samples, PRE, TrainSettings(steps=20, batch_size=2, encoder_rate=share, weight_decay=0)))
    moved = {
        part: max((model.state_dict()[n] - before[n]).abs().max() for n in before if n.startswith(part))
        for part in ("encoder", "head")
    }
    assert moved["head"] > 0
    assert float(moved["encoder"] / moved["head"]) == pytest.approx(share, rel=0.02)
