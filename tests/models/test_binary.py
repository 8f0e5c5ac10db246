"""The loss counts what was drawn and nothing else; decoding thresholds last."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from torch import Tensor

from napari_embryo.geometry import plan
from napari_embryo.models.binary_loss import decode, loss, to_parts

HW = (5, 7)
LOGITS = arrays(np.float32, (2, 3, *HW), elements=st.floats(-12, 12, width=32))
MASKS = arrays(np.bool_, (2, 3, *HW))
KNOWN = arrays(np.bool_, (2, 3))
VALID = arrays(np.bool_, (2, 1, *HW))
fast = settings(max_examples=60, deadline=None)


def losses(
    logits: npt.NDArray[Any],
    masks: npt.NDArray[Any],
    valid: npt.NDArray[Any] | None = None,
    known: npt.NDArray[Any] | None = None,
) -> dict[str, float]:
    targets = {
        "masks": masks,
        "valid": np.ones((len(masks), 1, *masks.shape[2:])) if valid is None else valid,
        "known": np.ones(masks.shape[:2]) if known is None else known,
    }
    found = loss({"logits": torch.from_numpy(logits)}, {name: torch.from_numpy(t) for name, t in targets.items()})
    return {name: float(value) for name, value in found.items()}


def formula(logits: npt.NDArray[Any], masks: npt.NDArray[Any], valid: npt.NDArray[Any], known: npt.NDArray[Any]) -> Any:
    """Mean over the known (image, class) pairs of cross-entropy per valid pixel and 1 - Dice with s = 1, in double."""
    entropies, dices = [], []
    for n, c in zip(*np.nonzero(known), strict=True):
        z, g = (a[n, c][valid[n, 0]].astype(float) for a in (logits, masks))
        p = 1 / (1 + np.exp(-z))
        entropies.append(-(g * np.log(p) + (1 - g) * np.log(1 - p)).sum() / max(1, len(z)))
        dices.append(1 - (2 * (p * g).sum() + 1) / (p.sum() + g.sum() + 1))
    return {"bce": np.mean(entropies or [0]), "dice": np.mean(dices or [0])}


@fast
@given(LOGITS, MASKS, VALID, KNOWN)
def test_losses_are_their_formulas(
    logits: npt.NDArray[Any], masks: npt.NDArray[Any], valid: npt.NDArray[Any], known: npt.NDArray[Any]
) -> None:
    assert losses(logits, masks, valid, known) == pytest.approx(
        formula(logits, masks, valid, known), rel=1e-3, abs=1e-5
    )


@fast
@given(MASKS)
def test_perfect_logits_cost_nothing(masks: npt.NDArray[Any]) -> None:
    assert losses(np.where(masks, 30, -30).astype(np.float32), masks) == pytest.approx({"bce": 0, "dice": 0}, abs=1e-5)


@fast
@given(LOGITS, MASKS, MASKS, KNOWN)
def test_what_nobody_drew_does_not_count(
    logits: npt.NDArray[Any], masks: npt.NDArray[Any], others: npt.NDArray[Any], known: npt.NDArray[Any]
) -> None:
    changed = np.where(known[:, :, None, None], masks, others)
    assert losses(logits, masks, known=known) == losses(logits, changed, known=known)


@fast
@given(LOGITS, LOGITS, MASKS, MASKS, VALID)
def test_padding_does_not_count(
    logits: npt.NDArray[Any],
    other_logits: npt.NDArray[Any],
    masks: npt.NDArray[Any],
    other_masks: npt.NDArray[Any],
    valid: npt.NDArray[Any],
) -> None:
    plain = losses(logits, masks, valid)
    assert losses(np.where(valid, logits, other_logits), np.where(valid, masks, other_masks), valid) == plain


def test_letterboxing_does_not_change_the_loss() -> None:
    rng = np.random.default_rng(0)
    logits, masks = rng.normal(size=(1, 2, *HW)).astype(np.float32), rng.random((1, 2, *HW)) > 0.5
    margins = ((0, 0), (0, 0), (3, 2), (1, 4))
    padded = losses(
        np.pad(logits, margins, constant_values=9), np.pad(masks, margins), np.pad(np.ones((1, 1, *HW), bool), margins)
    )
    assert padded == pytest.approx(losses(logits, masks))


@pytest.mark.parametrize(
    ("masks", "known", "valid"),
    [
        (np.zeros((1, 2, *HW)), np.ones((1, 2)), np.ones((1, 1, *HW))),
        (np.ones((1, 2, *HW)), np.ones((1, 2)), np.ones((1, 1, *HW))),
        (np.zeros((1, 2, *HW)), np.zeros((1, 2)), np.ones((1, 1, *HW))),
        (np.zeros((1, 2, *HW)), np.ones((1, 2)), np.zeros((1, 1, *HW))),
    ],
    ids=["nothing there", "everything", "nothing drawn", "only padding"],
)
@pytest.mark.parametrize("logit", [-80.0, -3.0, 0.0, 80.0])
def test_empty_targets_have_finite_losses_and_gradients(
    masks: npt.NDArray[Any], known: npt.NDArray[Any], valid: npt.NDArray[Any], logit: float
) -> None:
    logits = torch.full(masks.shape, logit, requires_grad=True)
    targets = {"masks": torch.from_numpy(masks), "known": torch.from_numpy(known), "valid": torch.from_numpy(valid)}
    total = sum(loss({"logits": logits}, targets).values(), torch.zeros(()))
    total.backward()
    assert torch.isfinite(total)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_predicting_something_where_there_is_nothing_costs() -> None:
    nothing = np.zeros((1, 1, *HW), bool)
    quiet, loud = (losses(np.full((1, 1, *HW), z, np.float32), nothing) for z in (-9.0, 9.0))
    assert loud["dice"] > 0.9
    assert quiet["dice"] < 0.01
    assert loud["bce"] == pytest.approx(9, abs=1e-3)


def test_losses_are_computed_in_single_precision_from_half() -> None:
    logits = torch.randn(1, 2, *HW).bfloat16()
    targets = {"masks": torch.ones(1, 2, *HW), "known": torch.ones(1, 2), "valid": torch.ones(1, 1, *HW)}
    assert {value.dtype for value in loss({"logits": logits}, targets).values()} == {torch.float32}


def edge(left: float, right: float) -> Tensor:
    """Logits (1, 32, 32) with probability ``left`` in the left half, ``right`` in the other."""
    p = torch.full((1, 32, 32), left, dtype=torch.float64)
    p[:, :, 16:] = right
    return torch.logit(p).float()


@pytest.mark.parametrize("threshold", [0.35, 0.5, 0.65, 0.8])
def test_the_edge_lies_where_the_probability_crosses_the_threshold(threshold: float) -> None:
    """Between two network pixels 10 image pixels apart probabilities fall linearly from 0.9 to 0.2."""
    masks, probabilities = decode(edge(0.9, 0.2), plan((320, 320), (32, 32)), ("ICM",), threshold)
    crossing = 154.5 + 10 * (0.9 - threshold) / 0.7
    np.testing.assert_array_equal(masks[0], np.broadcast_to(np.arange(320) < crossing, (320, 320)))
    assert probabilities.shape == (1, 320, 320)


def test_decoding_against_pillow() -> None:
    logits = torch.randn(2, 32, 40, generator=torch.Generator().manual_seed(0))
    masks, probabilities = decode(logits, plan((97, 131), (32, 40), "stretch"), ("ICM", "TE"), 0.5)
    for found, mask, z in zip(probabilities, masks, logits.numpy(), strict=True):
        p = Image.fromarray((1 / (1 + np.exp(-z.astype(float)))).astype(np.float32))
        expected = np.asarray(p.resize((131, 97), Image.Resampling.BILINEAR))
        np.testing.assert_allclose(found, expected, atol=1e-6)
        np.testing.assert_array_equal(mask, found >= 0.5)


@pytest.mark.parametrize("fit", ["letterbox", "stretch"])
def test_probabilities_stay_probabilities_in_the_image_s_size(fit: Any) -> None:
    geometry = plan((61, 143), (48, 64), fit, (7, 9, 55, 120))
    found = to_parts({"logits": 9 * torch.randn(3, 48, 64)}, geometry, ("ICM", "TE", "ZP"), 0.5)
    assert found.classes == ("ICM", "TE", "ZP")
    assert found.masks.shape == found.probabilities.shape == (3, 61, 143)
    assert (found.masks.dtype, found.probabilities.dtype) == (np.bool_, np.float32)
    assert found.probabilities.min() >= 0
    assert found.probabilities.max() <= 1
    outside = np.ones((61, 143), bool)
    outside[7:55, 9:120] = False
    assert not found.masks[:, outside].any()


def test_padding_is_never_in_a_mask() -> None:
    geometry = plan((40, 80), (64, 64))
    logits = torch.where(torch.from_numpy(geometry.valid()), -9.0, 9.0)[None]
    masks, _ = decode(logits, geometry, ("ICM",), 0.5)
    assert not masks.any()
