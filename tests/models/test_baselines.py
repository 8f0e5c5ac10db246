"""U-Net and Inception: the sizes of the literature, any picture size, and gradients everywhere."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torchvision.models import inception_v3

from napari_embryo import models
from napari_embryo.families import InceptionSettings, UNetSettings
from napari_embryo.models import binary_loss, checkpoint, fragmentation_loss
from napari_embryo.models.baselines import Inception, UNet
from napari_embryo.models.blocks import USUAL_RATIO
from napari_embryo.settings import Preprocessing, TrainSettings
from napari_embryo.train.engine import Learner

PUBLISHED = 31_037_633
"""The widespread PyTorch U-Net: RGB in, one class out, 2 x 2 transposed convolutions."""


def count(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def build(base_channels: int = 8, classes: tuple[str, ...] = ("ICM", "TE", "ZP")) -> UNet:
    torch.manual_seed(0)
    net = models.build(UNetSettings(base_channels=base_channels, classes=classes))
    assert isinstance(net, UNet)
    return net


def pictures(count: int, hw: tuple[int, int] = (48, 64)) -> Tensor:
    return torch.randn(count, 1, *hw, generator=torch.Generator().manual_seed(1))


def formula(base: int, classes: int) -> int:
    """Two 3 x 3 convolutions with batch normalization per level, 1 x 1 before every concatenation, 1 x 1 head."""

    def double(i: int, o: int) -> int:
        return 9 * (i * o + o * o) + 4 * o

    w = [base * 2**i for i in range(5)]
    down = sum(double(i, o) for i, o in zip([1, *w[:-1]], w, strict=True))
    up = sum(2 * c * c + c + double(2 * c, c) for c in w[:4])
    return down + up + base * classes + classes


@pytest.mark.parametrize(("base", "classes"), [(64, 1), (16, 3), (8, 2)])
def test_as_many_parameters_as_the_formula(base: int, classes: int) -> None:
    assert count(build(base, tuple("abc"[:classes]))) == formula(base, classes)


def test_as_many_parameters_as_the_literature_s() -> None:
    """A transposed convolution has three 2c x c kernels more than a 1 x 1 one, an RGB stem 2 x 9 x 64 weights more."""
    transposed = sum(3 * 2 * c * c for c in (64, 128, 256, 512))
    assert count(build(64, ("ZP",))) + transposed + 2 * 9 * 64 == PUBLISHED


@pytest.mark.parametrize("hw", [(224, 300), (223, 301), (97, 131), (48, 64), (17, 31), (16, 16)])
@pytest.mark.parametrize("classes", [("ZP",), ("ICM", "TE", "ZP")])
def test_any_size(hw: tuple[int, int], classes: tuple[str, ...]) -> None:
    with torch.no_grad():
        out = build(4, classes).eval()(pictures(2, hw))
    assert {name: tuple(t.shape) for name, t in out.items()} == {"logits": (2, len(classes), *hw)}
    assert torch.isfinite(out["logits"]).all()


@pytest.mark.parametrize("training", [True, False])
def test_gradients_reach_every_parameter(training: bool) -> None:
    net, images = build(), pictures(2)
    with torch.no_grad():
        net.train()(images)
    targets = {"masks": images.expand(-1, 3, -1, -1) > 0, "valid": torch.ones_like(images), "known": torch.ones(2, 3)}
    sum(binary_loss.loss(net.train(training)(images), targets).values(), torch.zeros(())).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_eval_is_deterministic_and_batch_invariant() -> None:
    net, images = build(), pictures(3)
    with torch.no_grad():
        net.train()(images)
        net.eval()
        together, again, alone = net(images)["logits"], net(images)["logits"], net(images[1:2])["logits"]
    assert torch.equal(together, again)
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=1e-4)


def test_it_sees_as_far_as_its_depth() -> None:
    """A change in one corner reaches the other through the bottleneck."""
    net, images = build().eval(), pictures(1, (64, 64)).requires_grad_()
    net(images)["logits"][0, 0, 60, 60].backward()
    assert images.grad is not None
    assert images.grad[0, 0, :4, :4].any()


def test_it_has_no_attention_maps() -> None:
    assert build().map_names() == ()


INCEPTION = 21_787_617
"""Parameters of torchvision's without the auxiliary classifier, one output."""


@pytest.fixture(scope="module")
def inception() -> Inception:
    torch.manual_seed(0)
    net = models.build(InceptionSettings())
    assert isinstance(net, Inception)
    torch.nn.init.normal_(net.regression.last.weight, std=0.05)
    with torch.no_grad():
        net.train()(pictures(4, (96, 96)))
    return net.eval()


def told(count: int) -> dict[str, Tensor]:
    """Grades and ratios of pictures on which nothing is drawn."""
    ratio = torch.tensor([float("nan"), 0.3]).repeat(count // 2)
    low = torch.tensor([0.25, float("nan")]).repeat(count // 2)
    unknown = {"masks": torch.zeros(count, 2, 96, 96), "known": torch.zeros(count, 2)}
    return {**unknown, "valid": torch.ones(count, 1, 96, 96), "ratio": ratio, "low": low, "high": 2 * low}


def test_inception_is_torchvision_s_up_to_its_last_layer(inception: Inception) -> None:
    other = inception_v3(weights=None, aux_logits=False, init_weights=False).eval()
    other.fc = torch.nn.Linear(2048, 1)
    state = {k.removeprefix("trunk."): v for k, v in inception.state_dict().items()}
    other.load_state_dict({k.replace("regression.last", "fc"): v for k, v in state.items()})
    images = pictures(2, (99, 131))
    with torch.no_grad():
        found, expected = inception(images), other(images.repeat(1, 3, 1, 1))
    assert found.keys() == {"ratio"}
    torch.testing.assert_close(found["ratio"], expected, atol=1e-5, rtol=1e-4)
    assert count(inception) == INCEPTION


@pytest.mark.parametrize("hw", [(75, 75), (97, 131), (223, 301)])
def test_inception_takes_any_size_from_75(inception: Inception, hw: tuple[int, int]) -> None:
    with torch.no_grad():
        together, again, alone = (
            inception(x)["ratio"] for x in (pictures(3, hw), pictures(3, hw), pictures(3, hw)[1:2])
        )
    assert together.shape == (3, 1)
    assert torch.equal(together, again)
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=1e-4)


def test_inception_says_what_size_it_needs(inception: Inception) -> None:
    with pytest.raises(
        ValueError, match="74 x 96 were given; Inception v3 needs at least 75 pixels per side, and 299 is usual"
    ):
        inception(pictures(1, (74, 96)))


def test_inception_starts_at_the_ratio_given() -> None:
    net = models.build(InceptionSettings()).eval()
    assert isinstance(net, Inception)
    for ratio in (USUAL_RATIO, 0.2):
        net.regression.start_at(ratio)
        with torch.no_grad():
            found = torch.sigmoid(net(pictures(2, (80, 80)))["ratio"])
        torch.testing.assert_close(found, torch.full((2, 1), ratio))


def test_inception_comes_back_from_its_file(inception: Inception, tmp_path: Path) -> None:
    info = checkpoint.CheckpointInfo(model=inception.settings, preprocessing=Preprocessing(height=299, width=299))
    checkpoint.save(tmp_path / "inception.safetensors", inception, info)
    found = checkpoint.load(tmp_path / "inception.safetensors")
    images = pictures(2, (96, 96))
    with torch.no_grad():
        assert torch.equal(found.model(images)["ratio"], inception(images)["ratio"])


def test_inception_learns_from_ratios_and_grades() -> None:
    """By the real learner; what concerns masks is no loss of it."""
    torch.manual_seed(0)
    net = models.build(InceptionSettings(dropout=0))
    batch = {"image": pictures(4, (96, 96)), **told(4)}
    settings = TrainSettings(device="cpu", precision="float32", learning_rate=1e-3, schedule="constant")
    learner = Learner(net, settings, 4)
    losses = learner.learn(batch, 0)
    assert losses.keys() == {"precise", "range", "ratio_bce"}
    assert losses["precise"] == pytest.approx(0.3 - USUAL_RATIO, abs=1e-5)
    assert losses["range"] == pytest.approx(0.25 - USUAL_RATIO, abs=1e-5)
    later = [learner.learn(batch, seed)["precise"] for seed in range(1, 4)]
    assert later[-1] < losses["precise"]
    _, scores = learner.judge(batch)
    assert scores.keys() == {"1 - error of the ratio"}
    assert scores["1 - error of the ratio"].isnan().tolist() == [True, False, True, False]


def test_inception_draws_nothing(inception: Inception) -> None:
    assert inception.map_names() == ()
    assert inception.cam_layers() == {}
    assert models.NETWORKS["inception"].decode is None
    assert models.NETWORKS["inception"].loss is fragmentation_loss.loss
    with pytest.raises(ValidationError, match="this family has fragment and embryo"):
        InceptionSettings(classes=("ICM",))
