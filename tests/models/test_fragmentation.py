"""Losses, scores and decoding of fragments and their ratio: against plain formulas and other people's code."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sklearn.metrics import f1_score, jaccard_score
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from napari_embryo.families import FRAGMENT_CLASSES
from napari_embryo.geometry import plan
from napari_embryo.models import NETWORKS, fragmentation_loss
from napari_embryo.models.fragmentation_loss import focal_loss, range_loss, soft_ratio, to_parts
from napari_embryo.settings import GRADES
from napari_embryo.synthetic import draw_cleavage

HW = (7, 9)
NAN = float("nan")
DRAWN = ("bce", "dice", "focal", "embryo", "consistency")
TOLD = ("precise", "range", "ratio_bce")


def random(*shape: int, seed: int = 0, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def target(seed: int = 0, **changes: Any) -> dict[str, Tensor]:
    """One picture, drawn; its last column is padding."""
    rng = np.random.default_rng(seed)
    fragments = rng.random(HW) < 0.2
    masks = np.stack((fragments, fragments | (rng.random(HW) < 0.6)))
    valid = np.ones((1, *HW), bool)
    valid[:, :, -1] = False
    told = {"masks": masks, "valid": valid, "known": (True, True), "ratio": NAN, "low": NAN, "high": NAN} | changes
    return {name: torch.as_tensor(np.array(value))[None] for name, value in told.items()}


def weak(grade: str, seed: int = 0, **changes: Any) -> dict[str, Tensor]:
    """One picture of which the grade is known alone; what lies in its masks means nothing."""
    low, high = GRADES[grade]
    return target(seed, **{"known": (False, False), "low": low, "high": high} | changes)


def joined(*targets: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.cat([each[name].float() for each in targets]) for name in targets[0]}


def outputs(count: int, seed: int = 1) -> dict[str, Tensor]:
    return {"logits": random(count, 2, *HW, seed=seed), "ratio": random(count, 1, seed=seed + 1, scale=1.5)}


def losses(given: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in fragmentation_loss.loss(given, targets).items()}


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-np.asarray(x, float)))


def entropy(z: Any, g: Any) -> Any:
    p = sigmoid(z)
    return -(g * np.log(p) + (1 - g) * np.log(1 - p))


def dice(z: Any, g: Any) -> Any:
    p = sigmoid(z)
    return 1 - (2 * (p * g).sum() + 1) / (p.sum() + g.sum() + 1)


def formula(given: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, float]:
    """The drawn picture's losses by the paper's equations, in double, over its valid pixels."""
    valid = targets["valid"][0, 0].numpy().astype(bool)
    (zf, ze), (gf, ge) = (a[0].double().numpy()[:, valid] for a in (given["logits"], targets["masks"]))
    y, truth = sigmoid(given["ratio"][0, 0]), gf.sum() / ge.sum()
    p_t = np.where(gf == 1, sigmoid(zf), 1 - sigmoid(zf))
    return {
        "bce": entropy(zf, gf).mean(),
        "dice": dice(zf, gf),
        "focal": ((1 - p_t) ** 2 * entropy(zf, gf)).mean(),
        "embryo": entropy(ze, ge).mean() + dice(ze, ge),
        "consistency": abs(sigmoid(zf)[ge == 1].sum() / ge.sum() - truth),
        "precise": abs(y - truth),
        "range": 0.0,
        "ratio_bce": -(truth * np.log(y) + (1 - truth) * np.log(1 - y)),
    }


@pytest.mark.parametrize("seed", range(5))
def test_losses_of_a_drawn_picture_are_their_formulas(seed: int) -> None:
    given, targets = outputs(1, seed + 10), target(seed)
    assert losses(given, targets) == pytest.approx(formula(given, targets), rel=1e-4, abs=1e-6)


def test_focal_is_torchvision_s() -> None:
    logits, masks = random(2, *HW), (random(2, *HW, seed=1) > 0).float()
    found = focal_loss(logits.double(), masks.double())
    expected = sigmoid_focal_loss(logits.double(), masks.double(), alpha=-1, gamma=2)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("logit", [-120.0, -30.0, 0.0, 30.0, 120.0])
def test_extreme_logits_have_finite_losses_and_gradients(logit: float) -> None:
    given = {"logits": torch.full((2, 2, *HW), logit), "ratio": torch.full((2, 1), logit)}
    for tensor in given.values():
        tensor.requires_grad_()
    total = sum(fragmentation_loss.loss(given, joined(target(), weak("B"))).values(), torch.zeros(()))
    total.backward()
    assert torch.isfinite(total)
    assert all(torch.isfinite(t.grad).all() for t in given.values() if t.grad is not None)


INTERVALS = [
    ("A", 0.0, 0.0, 0.0),
    ("A", 0.05, 0.0, 0.0),
    ("A", 0.10, 0.0, 0.0),
    ("A", 0.3, 0.2, 1.0),
    ("B", 0.0, 0.10, -1.0),
    ("B", 0.10, 0.0, 0.0),
    ("B", 0.17, 0.0, 0.0),
    ("B", 0.25, 0.0, 0.0),
    ("B", 0.9, 0.65, 1.0),
    ("C", 0.1, 0.15, -1.0),
    ("C", 0.25, 0.0, 0.0),
    ("C", 0.4, 0.0, 0.0),
    ("C", 0.50, 0.0, 0.0),
    ("C", 0.51, 0.01, 1.0),
    ("D", 0.2, 0.3, -1.0),
    ("D", 0.50, 0.0, 0.0),
    ("D", 0.8, 0.0, 0.0),
    ("D", 1.0, 0.0, 0.0),
]


@pytest.mark.parametrize(("grade", "ratio", "value", "slope"), INTERVALS)
def test_the_range_loss_is_the_distance_to_the_interval(grade: str, ratio: float, value: float, slope: float) -> None:
    low, high = (torch.tensor(end, dtype=torch.float64) for end in GRADES[grade])
    y = torch.tensor(ratio, dtype=torch.float64, requires_grad=True)
    found = range_loss(y, low, high)
    found.backward()
    assert found.item() == pytest.approx(value, abs=1e-12)
    assert y.grad is not None
    assert y.grad.item() == slope


@pytest.mark.parametrize("logit", [-4.0, -1.9, -1.4, 0.3, 3.0])
@pytest.mark.parametrize("grade", GRADES)
def test_its_gradient_through_the_logit_is_the_difference_quotient(grade: str, logit: float) -> None:
    """A constant 1 outside the interval times the sigmoid's slope: it dies where the head saturates, and inside."""
    z = torch.tensor([[logit]], requires_grad=True)
    fragmentation_loss.loss({"ratio": z}, weak(grade))["range"].backward()
    (low, high), step = GRADES[grade], 1e-6

    def far(at: float) -> float:
        return float(max(low - sigmoid(at), 0) + max(sigmoid(at) - high, 0))

    assert z.grad is not None
    assert z.grad.item() == pytest.approx((far(logit + step) - far(logit - step)) / (2 * step), abs=1e-5)


def test_gradients_are_difference_quotients() -> None:
    y, low, high = (torch.tensor(v, dtype=torch.float64) for v in ((0.05, 0.2, 0.7), (0.1,) * 3, (0.25,) * 3))
    assert torch.autograd.gradcheck(range_loss, (y.requires_grad_(), low, high))
    logits, embryo = random(2, *HW).double().requires_grad_(), (random(2, *HW, seed=3) > 0).double()
    assert torch.autograd.gradcheck(lambda z: (soft_ratio(z, embryo) - 0.2).abs(), (logits,))
    masks = (random(2, *HW, seed=4) > 0).double()
    assert torch.autograd.gradcheck(lambda z: focal_loss(z, masks), (logits,))


def test_a_mask_of_the_true_ratio_is_consistent() -> None:
    """Whether it is the drawn mask or another of its area, and whatever lies outside the embryo."""
    targets = target()
    masks = targets["masks"][0] & targets["valid"][0]
    turned = torch.zeros(HW, dtype=torch.bool)
    turned[masks[1]] = masks[0][masks[1]].flip(0)
    for found in (masks[0], turned, turned | ~masks[1]):
        logits = torch.where(torch.stack((found, masks[1])), 60.0, -60.0)[None]
        assert losses({"logits": logits}, targets)["consistency"] == pytest.approx(0, abs=1e-6)
    logits = torch.where(masks[1], 60.0, -60.0).expand(1, 2, *HW)
    expected = 1 - masks[0].sum() / masks[1].sum()
    assert losses({"logits": logits}, targets)["consistency"] == pytest.approx(float(expected))


MIXED = {
    "drawn": target(0),
    "drawn, without fragments": target(1, masks=np.stack((np.zeros(HW, bool), np.ones(HW, bool)))),
    "drawn, nothing there": target(2, masks=np.zeros((2, *HW), bool)),
    "fragments only": target(3, known=(True, False)),
    "embryo only, grade B": target(4, known=(False, True), low=0.1, high=0.25),
    "grade A": weak("A", 5),
    "grade D": weak("D", 6),
    "ratio": target(7, known=(False, False), ratio=0.31),
    "ratio and grade": weak("C", 8, ratio=0.31),
    "drawn, with another ratio and grade": target(9, ratio=0.9, low=0.5, high=1.0),
    "nothing": target(10, known=(False, False)),
}
KNOWN = {
    "bce": (1, 1, 1, 1, 0, 0, 0, 0, 0, 1, 0),
    "dice": (1, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0),
    "focal": (1, 1, 1, 1, 0, 0, 0, 0, 0, 1, 0),
    "embryo": (1, 1, 1, 0, 1, 0, 0, 0, 0, 1, 0),
    "consistency": (1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0),
    "precise": (1, 1, 0, 0, 0, 0, 0, 1, 1, 1, 0),
    "range": (0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0),
    "ratio_bce": (1, 1, 0, 0, 0, 0, 0, 1, 1, 1, 0),
}
"""Which picture of ``MIXED`` each loss is known for."""


def test_each_loss_is_a_mean_over_the_pictures_it_is_known_for() -> None:
    given = outputs(len(MIXED))
    together = losses(given, joined(*MIXED.values()))
    each = [losses({k: v[i : i + 1] for k, v in given.items()}, one) for i, one in enumerate(MIXED.values())]
    for name, known in KNOWN.items():
        own = [one[name] for one, is_known in zip(each, known, strict=True) if is_known]
        assert together[name] == pytest.approx(np.mean(own), rel=1e-5), name
        assert {one[name] for one, is_known in zip(each, known, strict=True) if not is_known} <= {0.0}, name


def test_counts_are_what_the_losses_divide_by() -> None:
    assert fragmentation_loss.counts(joined(*MIXED.values())) == {name: sum(known) for name, known in KNOWN.items()}
    for i, one in enumerate(MIXED.values()):
        assert fragmentation_loss.counts(one) == {name: known[i] for name, known in KNOWN.items()}


def test_parts_of_a_batch_add_up_to_it() -> None:
    """As the learner does it when memory is short: every loss by its share of the count."""
    given, targets = outputs(len(MIXED)), joined(*MIXED.values())
    whole, counts = losses(given, targets), fragmentation_loss.counts(targets)
    sums = dict.fromkeys(whole, 0.0)
    for part in (slice(0, 4), slice(4, 7), slice(7, None)):
        own = {name: value[part] for name, value in targets.items()}
        here, there = fragmentation_loss.counts(own), losses({k: v[part] for k, v in given.items()}, own)
        sums = {name: total + there[name] * here[name] / counts[name] for name, total in sums.items()}
    assert sums == pytest.approx(whole, rel=1e-5)


def test_pictures_with_a_grade_alone_teach_the_masks_nothing() -> None:
    given = {name: value.requires_grad_() for name, value in outputs(len(MIXED)).items()}
    found = fragmentation_loss.loss(given, joined(*MIXED.values()))
    sum((found[name] for name in DRAWN), torch.zeros(())).backward()
    logits, ratio = given["logits"].grad, given["ratio"].grad
    assert logits is not None
    assert ratio is None
    taught = {name: (bool(g[0].any()), bool(g[1].any())) for name, g in zip(MIXED, logits, strict=True)}
    known = {name: tuple(bool(k) for k in one["known"][0]) for name, one in MIXED.items()}
    assert taught == known
    assert not logits[..., -1].any(), "padding teaches nothing"


def test_what_is_not_known_does_not_count() -> None:
    given, targets = outputs(len(MIXED)), joined(*MIXED.values())
    noise = (random(len(MIXED), 2, *HW, seed=7) > 0).float()
    changed = targets | {"masks": torch.where((targets["known"] > 0)[:, :, None, None], targets["masks"], noise)}
    assert losses(given, changed) == losses(given, targets)


def test_the_embryo_holds_its_fragments() -> None:
    fragments = np.zeros(HW, bool)
    fragments[2:4, 2:5] = True
    cells = np.zeros(HW, bool)
    cells[3:6, 3:8] = True
    apart, whole = (target(masks=np.stack((fragments, embryo))) for embryo in (cells, cells | fragments))
    given = outputs(1)
    assert losses(given, apart) == losses(given, whole)
    for name, values in fragmentation_loss.score(given, apart, FRAGMENT_CLASSES).items():
        torch.testing.assert_close(values, fragmentation_loss.score(given, whole, FRAGMENT_CLASSES)[name])


@pytest.mark.parametrize("kind", ["logits", "ratio"])
def test_a_network_with_one_output_has_its_losses_and_scores(kind: str) -> None:
    given, targets = outputs(len(MIXED)), joined(*MIXED.values())
    alone = {kind: given[kind]}
    whole = losses(given, targets)
    assert losses(alone, targets) == {name: whole[name] for name in (DRAWN if kind == "logits" else TOLD)}
    scores = set(fragmentation_loss.score(alone, targets, FRAGMENT_CLASSES))
    assert scores == ({"Dice fragment", "IoU embryo"} if kind == "logits" else {"1 - error of the ratio"})
    assert whole.keys() <= fragmentation_loss.counts(targets).keys()


def test_scores_are_scikit_learn_s() -> None:
    given, targets = outputs(len(MIXED)), joined(*MIXED.values())
    found = fragmentation_loss.score(given, targets, FRAGMENT_CLASSES)
    valid = targets["valid"][0, 0].numpy() > 0
    for i, known in enumerate(targets["known"]):
        drawn = targets["masks"][i].numpy()[:, valid] > 0
        drawn[1] |= drawn[0]
        here = given["logits"][i].numpy()[:, valid] >= 0
        dice_score = f1_score(drawn[0], here[0], zero_division=1.0) if known[0] else NAN
        iou = jaccard_score(drawn[1], here[1], zero_division=1.0) if known[1] else NAN
        assert found["Dice fragment"][i].item() == pytest.approx(dice_score, nan_ok=True)
        assert found["IoU embryo"][i].item() == pytest.approx(iou, nan_ok=True)
        exact = KNOWN["precise"][i]
        truth = drawn[0].sum() / drawn[1].sum() if all(known) and exact else targets["ratio"][i].item()
        error = abs(sigmoid(given["ratio"][i, 0]) - truth)
        assert found["1 - error of the ratio"][i].item() == pytest.approx(1 - error if exact else NAN, nan_ok=True)


def test_nothing_drawn_and_nothing_found_is_right() -> None:
    found = fragmentation_loss.score({"logits": torch.full((1, 2, *HW), -9.0)}, MIXED["drawn, nothing there"], ())
    assert {name: value.item() for name, value in found.items()} == {"Dice fragment": 1, "IoU embryo": 1}


def test_half_precision_is_computed_in_single() -> None:
    given = {name: value.bfloat16() for name, value in outputs(1).items()}
    assert {value.dtype for value in fragmentation_loss.loss(given, target()).values()} == {torch.float32}


def test_both_families_are_registered() -> None:
    for family in ("regdeeplab", "inception"):
        assert NETWORKS[family].loss is fragmentation_loss.loss
        assert NETWORKS[family].score is fragmentation_loss.score
        assert NETWORKS[family].counts is fragmentation_loss.counts


def perfect(masks: npt.NDArray[np.bool_]) -> Tensor:
    return torch.where(torch.from_numpy(masks), 30.0, -30.0)


@pytest.mark.parametrize("hw", [(97, 131), (223, 301), (160, 160)])
def test_decoding_a_perfect_output_gives_the_truth(hw: tuple[int, int]) -> None:
    """Through the letterbox and back: right but for the edges' rounding."""
    embryo = draw_cleavage(3, fragmentation=0.2, shape=hw)
    whole = embryo.masks["embryo"]
    truth = np.stack((embryo.fragments, whole))
    geometry = plan(hw, (256, 256))
    net = perfect(np.stack([geometry.mask_to_net(mask) for mask in truth]))
    found = to_parts({"logits": net}, geometry, FRAGMENT_CLASSES, 0.5)
    wrong = (found.masks != truth).sum((1, 2)) / truth.sum((1, 2))
    assert found.masks.shape == (2, *hw)
    assert wrong[1] < 0.01
    assert wrong[0] < 0.1
    ratio = found.masks[0].sum() / found.masks[1].sum()
    assert ratio == pytest.approx(embryo.fragmentation_ratio, abs=0.01)


def test_labels_show_fragments_on_top_of_the_embryo() -> None:
    embryo = draw_cleavage(3, fragmentation=0.2, shape=(64, 64))
    truth = np.stack((embryo.fragments, embryo.masks["embryo"]))
    logits = torch.where(torch.from_numpy(truth), torch.tensor([1.0, 30.0])[:, None, None], torch.tensor(-30.0))
    labels = to_parts({"logits": logits}, plan((64, 64), (64, 64)), FRAGMENT_CLASSES, 0.5).labels()
    np.testing.assert_array_equal(labels, np.where(truth[0], 1, np.where(truth[1], 2, 0)))


@pytest.mark.parametrize(
    ("extra", "numbers"),
    [
        ({}, {}),
        ({"ratio": torch.tensor([0.0])}, {"ratio_regressed": 0.5}),
        ({"injection": torch.tensor([0.25, -3.0])}, {"injection": 0.25}),
        ({"injection": torch.zeros(256)}, {}),
    ],
    ids=["masks alone", "ratio", "shift of the logits", "shift of features"],
)
def test_numbers_beside_the_masks(extra: dict[str, Tensor], numbers: dict[str, float]) -> None:
    given = {"logits": torch.zeros(2, 64, 64), **extra}
    assert to_parts(given, plan((64, 64), (64, 64)), FRAGMENT_CLASSES, 0.5).numbers == numbers
