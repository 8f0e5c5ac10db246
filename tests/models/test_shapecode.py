"""The shape code: against vector-quantize-pytorch and closed forms; it learns, and frozen it stays as it is."""

from math import log
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy, cross_entropy

from napari_embryo.families import ShapeCodeSettings
from napari_embryo.models import shapecode
from napari_embryo.models.boxes import grown, jitter
from napari_embryo.models.shapecode import Codebook, FrozenShapeCode, ShapeCode, codes_in_use, complete

SIZES = [(32, 2), (32, 4), (32, 8), (64, 2), (64, 4), (64, 8)]


def build(seed: int = 0, **options: Any) -> ShapeCode:
    torch.manual_seed(seed)
    return shapecode.build(ShapeCodeSettings(**options))


def silhouettes(count: int, side: int = 32, seed: int = 0) -> Tensor:
    """Wobbly ellipses (N, 1, side, side) in {0, 1}, most of them whole, some cut by the square's edge."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(low: float, high: float) -> Tensor:
        return torch.empty(count, 1, 1).uniform_(low, high, generator=generator)

    line = (torch.arange(side) + 0.5) / side * 2 - 1
    x, y = line - drawn(-0.3, 0.3), line[:, None] - drawn(-0.3, 0.3)
    angle = torch.atan2(y, x) - drawn(0, 6.3)
    bumps = 1 + 0.08 * torch.sin(2 * angle + drawn(0, 6.3)) + 0.05 * torch.sin(3 * angle + drawn(0, 6.3))
    squeeze = drawn(0.7, 1)
    radius = drawn(0.5, 0.9) * bumps / (torch.cos(angle) ** 2 + (torch.sin(angle) / squeeze) ** 2).sqrt()
    return (x**2 + y**2 <= radius**2).float()[:, None]


def targets(masks: Tensor) -> dict[str, Tensor]:
    return {"image": masks, "masks": masks, "valid": torch.ones_like(masks)}


def learn(model: ShapeCode, masks: Tensor, steps: int, size: int = 32) -> None:
    optimizer = torch.optim.Adam(model.train().parameters())
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 - step / steps)
        batch = masks[torch.randint(len(masks), (size,), generator=generator)]
        losses = shapecode.loss(model(batch), targets(batch))
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
    model.eval()


@pytest.fixture(scope="module")
def learned() -> ShapeCode:
    model = build(grid=8, codes=64)
    learn(model, silhouettes(1000), 80)
    return model


def test_learns(learned: ShapeCode) -> None:
    unseen = silhouettes(200, seed=1)
    with torch.no_grad():
        outputs = learned(unseen)
    assert shapecode.score(outputs, targets(unseen), ("cell",))["IoU"].mean() >= 0.95
    share, perplexity = codes_in_use(outputs["indices"], 64)
    assert share >= 0.9
    assert perplexity > 16


@pytest.mark.parametrize(("side", "grid"), SIZES)
def test_shapes(side: int, grid: int) -> None:
    model = build(side=side, grid=grid, codes=9, dimension=5)
    masks = silhouettes(3, side)
    outputs = model.train()(masks)
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {
        "logits": (3, 1, side, side),
        "codebook": (3,),
        "indices": (3, grid, grid),
        "squared": (3,),
    }
    indices = model.encode(masks)
    assert indices.dtype == torch.int64
    assert model.embed(indices).shape == (3, 5, grid, grid)
    assert model.last_hidden(model.embed(indices)).shape == (3, 32, side, side)


def test_forward_is_encode_embed_decode(learned: ShapeCode) -> None:
    masks = silhouettes(5, seed=3)
    with torch.no_grad():
        outputs, indices = learned(masks), learned.encode(masks)
        again = learned.decode(learned.embed(indices))
    assert torch.equal(outputs["indices"], indices.float())
    torch.testing.assert_close(outputs["logits"], again, atol=1e-4, rtol=0)


def test_codes_lie_as_the_square_does() -> None:
    """Row by row: an index (n, row, column) is of the vector at that row and column, and no other."""
    codebook = Codebook(8, 3)
    indices = torch.randint(8, (2, 4, 4), generator=torch.Generator().manual_seed(0))
    vectors = codebook.look_up(indices)
    for n, row, column in np.ndindex(2, 4, 4):
        assert torch.equal(vectors[n, :, row, column], codebook.codes[indices[n, row, column]])
    assert torch.equal(codebook.nearest(vectors), indices)
    assert torch.equal(codebook.nearest(vectors.transpose(2, 3)), indices.transpose(1, 2))


def test_a_change_of_a_corner_changes_codes_there(learned: ShapeCode) -> None:
    """The first code of the first row is of the square's upper left, not of another corner."""
    masks = silhouettes(100, seed=4)
    cut = masks.clone()
    cut[:, :, 24:, :8] = 1 - cut[:, :, 24:, :8]
    changed = (learned.encode(masks) != learned.encode(cut)).float().mean(0)
    assert changed[6:, :2].min() > 0.9
    assert changed[:2, 6:].max() < 0.5


@given(seed=st.integers(0, 10**6), codes=st.integers(2, 20), dimension=st.integers(1, 8))
@settings(max_examples=30, deadline=None)
def test_the_nearest_code(seed: int, codes: int, dimension: int) -> None:
    """By double precision, far from zero too, where |x|² - 2xy + |y|² cancels."""
    torch.manual_seed(seed)
    codebook = Codebook(codes, dimension)
    codebook.codes.copy_(torch.randn(codes, dimension) + 1000)
    vectors = torch.randn(3, dimension, 2, 2) + 1000
    rows = vectors.permute(0, 2, 3, 1).reshape(-1, 1, dimension).double()
    apart = (rows - codebook.codes.double()).square().sum(-1)
    chosen = apart.gather(1, codebook.nearest(vectors).reshape(-1, 1))[:, 0]
    assert torch.all(chosen <= apart.amin(1) + 1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_quantizes_and_follows_as_vector_quantize_pytorch(seed: int) -> None:
    peer = pytest.importorskip("vector_quantize_pytorch")
    torch.manual_seed(seed)
    theirs = peer.VectorQuantize(
        dim=6, codebook_size=10, decay=0.99, eps=1e-5, commitment_weight=0.25, threshold_ema_dead_code=0
    )
    ours = Codebook(10, 6).train()
    first = torch.randn(10, 6)
    theirs.codebook = first.clone()
    theirs._codebook.embed_avg.copy_(first)
    ours.codes.copy_(first)
    ours.sums.copy_(first)
    ours.batches.fill_(10_000)
    theirs.train()
    for _ in range(5):
        vectors = torch.randn(40, 6, 4, 4)
        theirs_chosen, theirs_indices, theirs_loss = theirs(vectors.permute(0, 2, 3, 1).reshape(40, 16, 6))
        chosen, indices, apart = ours(vectors)
        assert torch.equal(indices.reshape(40, 16), theirs_indices)
        torch.testing.assert_close(chosen.permute(0, 2, 3, 1).reshape(40, 16, 6), theirs_chosen)
        torch.testing.assert_close(apart.mean(), theirs_loss.sum())
        torch.testing.assert_close(ours.codes, theirs.codebook, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("learning", ["ema", "loss"])
def test_the_gradient_goes_straight_through(learning: Any) -> None:
    codebook = Codebook(7, 4, learning).train()
    vectors = torch.randn(2, 4, 3, 3, requires_grad=True)
    upstream = torch.randn(2, 4, 3, 3)
    chosen, _, _ = codebook(vectors)
    chosen.backward(upstream)
    assert vectors.grad is not None
    assert torch.equal(vectors.grad, upstream)
    assert not list(codebook.parameters()) if learning == "ema" else codebook.codes.grad is None


@pytest.mark.parametrize(("learning", "codes_pulled"), [("ema", 0.0), ("loss", 1.0)])
def test_the_losses_pull_as_said(learning: Any, codes_pulled: float) -> None:
    """By hand, of one vector: beta / D * 2 (e - c) on the vector; 2 / D (c - e) on the code if it learns by loss."""
    codebook = Codebook(2, 2, learning).eval()
    with torch.no_grad():
        codebook.codes.copy_(torch.tensor([[0.0, 0], [10, 10]]))
    vectors = torch.tensor([1.0, 3]).reshape(1, 2, 1, 1).requires_grad_()
    _, _, apart = codebook(vectors)
    apart.sum().backward()
    assert apart.item() == pytest.approx((0.25 + codes_pulled) * (1 + 9) / 2)
    assert vectors.grad is not None
    torch.testing.assert_close(vectors.grad.flatten(), 0.25 * torch.tensor([1.0, 3]))
    if codes_pulled:
        torch.testing.assert_close(codebook.codes.grad, torch.tensor([[-1.0, -3], [0, 0]]))


def test_codes_begin_as_vectors() -> None:
    """The first batch's own, all different: nothing moves where every vector is a code."""
    codebook = Codebook(4, 2).train()
    vectors = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    codebook(vectors.T.reshape(1, 2, 2, 2))
    assert sorted(codebook.codes.round(decimals=3).tolist()) == vectors.tolist()


def test_the_dead_are_revived() -> None:
    """All vectors move far away: the nearest code would follow alone."""
    torch.manual_seed(0)
    codebook = Codebook(16, 2).train()
    codebook(torch.randn(1, 2, 16, 16))
    assert len(codebook.nearest(torch.randn(1, 2, 16, 16) + 50).unique()) < 4
    for _ in range(100):
        codebook(torch.randn(1, 2, 16, 16) + 50)
    share, perplexity = codes_in_use(codebook.nearest(torch.randn(1, 2, 16, 16) + 50), 16)
    assert share == 1
    assert perplexity > 8


def test_few_vectors_leave_no_code_dead_for_being_few() -> None:
    """Eight vectors for 64 codes: each code's mean count is 1/8, and those in use are not thrown away."""
    torch.manual_seed(0)
    codebook = Codebook(64, 2).train()
    vectors = torch.randn(1, 2, 2, 4)
    codebook(vectors)
    for _ in range(400):
        codebook(vectors)
    assert torch.cdist(codebook.look_up(codebook.nearest(vectors))[0].flatten(1).T, codebook.codes).min(0)[0].max() < 9
    torch.testing.assert_close(codebook.look_up(codebook.nearest(vectors)), vectors, atol=1e-3, rtol=0)


def test_more_codes_than_vectors_begin() -> None:
    codebook = Codebook(10, 2).train()
    vectors = torch.randn(1, 2, 2, 2)
    chosen, _, _ = codebook(vectors)
    assert torch.equal(chosen, vectors)


def test_only_training_moves_codes() -> None:
    model = build(codes=16).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model(silhouettes(20))
    model.encode(silhouettes(20))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model.train()(silhouettes(20))
    assert not torch.equal(model.codebook.codes, before["codebook.codes"])


def test_the_seed_decides() -> None:
    runs = []
    for _ in range(2):
        model = build(codes=16, seed=3)
        torch.manual_seed(4)
        learn(model, silhouettes(40), 4, 16)
        runs.append(model.state_dict())
    assert all(torch.equal(value, runs[1][name]) for name, value in runs[0].items())


@pytest.mark.parametrize("codebook", ["ema", "loss"])
def test_codes_are_found_in_float32(codebook: Any) -> None:
    model = build(codes=16, codebook=codebook).train()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(silhouettes(20))
    assert outputs["codebook"].dtype == torch.float32
    assert model.codebook.codes.dtype == torch.float32
    assert torch.isfinite(shapecode.loss(outputs, targets(silhouettes(20)))["reconstruction"])


class Parent(nn.Module):
    """What a training does to all of a network."""

    def __init__(self, code: FrozenShapeCode) -> None:
        super().__init__()
        self.code, self.other = code, nn.Conv2d(1, code.settings.dimension, 8, 8)


def test_frozen_stays_frozen() -> None:
    learned = build(codes=16)
    learn(learned, silhouettes(20), 2)
    frozen = FrozenShapeCode(learned.settings)
    frozen.load_state_dict(learned.state_dict())
    parent = Parent(frozen).train()
    parent.requires_grad_(True)
    masks = silhouettes(8, seed=5)
    optimizer = torch.optim.AdamW(parent.parameters(), 0.1, weight_decay=0.5)
    for _ in range(3):
        logits = parent.code.decode(parent.other(masks))
        loss = binary_cross_entropy(torch.sigmoid(logits), masks) + parent.code(masks)["codebook"].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert parent.other.weight.grad is not None
    assert not any(module.training for module in parent.code.modules())
    assert [name for name, _ in parent.named_parameters()] == ["other.weight", "other.bias"]
    assert all(torch.equal(value, learned.state_dict()[name]) for name, value in frozen.state_dict().items())
    with torch.no_grad():
        assert torch.equal(frozen(masks)["logits"], learned(masks)["logits"])
    assert {name for name in parent.state_dict() if name.startswith("code.")} == {
        f"code.{name}" for name in learned.state_dict()
    }


@pytest.mark.parametrize("squared", [0.0, 1.0])
def test_losses_by_closed_form(squared: float) -> None:
    masks = silhouettes(3)
    logits = torch.randn(masks.shape, generator=torch.Generator().manual_seed(0))
    valid = torch.ones_like(masks)
    valid[1, :, :, 20:] = 0
    outputs = {"logits": logits, "codebook": torch.tensor([1.0, 2, 6]), "squared": torch.full((3,), squared)}
    found = shapecode.loss(outputs, {"masks": masks, "valid": valid})
    p, g, known = torch.sigmoid(logits).double().numpy(), masks.numpy(), valid.numpy().astype(bool)
    error = (p - g) ** 2 if squared else -np.log(np.where(g > 0, p, 1 - p))
    assert found["reconstruction"].item() == pytest.approx(
        np.mean([e[k].mean() for e, k in zip(error, known, strict=True)])
    )
    assert found["codebook"].item() == 3
    assert shapecode.counts({"masks": masks}) == {"reconstruction": 3, "codebook": 3}


@pytest.mark.parametrize("reconstruction", ["bce", "mse"])
def test_the_settings_choose_the_loss(reconstruction: Any) -> None:
    masks = silhouettes(4)
    model = build(codes=8, reconstruction=reconstruction).eval()
    outputs = model(masks)
    p = torch.sigmoid(outputs["logits"])
    expected = binary_cross_entropy(p, masks) if reconstruction == "bce" else (p - masks).square().mean()
    torch.testing.assert_close(shapecode.loss(outputs, targets(masks))["reconstruction"], expected)


@pytest.mark.parametrize(
    ("found", "drawn", "expected"),
    [([1, 1, 0, 0], [1, 0, 0, 0], 0.5), ([0, 0, 0, 0], [0, 0, 0, 0], 1.0), ([0, 0, 0, 0], [0, 1, 0, 0], 0.0)],
)
def test_score(found: list[int], drawn: list[int], expected: float) -> None:
    logits, masks = torch.tensor(found).float().reshape(1, 1, 2, 2) - 0.5, torch.tensor(drawn).reshape(1, 1, 2, 2)
    valid = torch.ones_like(masks)
    assert shapecode.score({"logits": logits}, {"masks": masks, "valid": valid}, ("cell",))["IoU"].tolist() == [
        expected
    ]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=50))
def test_codes_in_use(indices: list[int]) -> None:
    """The perplexity is exp of the cross-entropy of the indices under their own frequencies."""
    drawn = torch.tensor(indices)
    frequencies = torch.bincount(drawn, minlength=6) / len(drawn)
    entropy = cross_entropy(frequencies.clamp_min(1e-30).log().expand(len(drawn), 6), drawn)
    share, perplexity = codes_in_use(drawn.reshape(1, -1, 1), 6)
    assert share == len(set(indices)) / 6
    assert log(perplexity) == pytest.approx(entropy.item(), abs=1e-5)


def disc(center: tuple[float, float], radius: float, hw: tuple[int, int] = (120, 150)) -> npt.NDArray[np.bool_]:
    y, x = np.mgrid[: hw[0], : hw[1]] + 0.5
    return np.asarray((y - center[0]) ** 2 + (x - center[1]) ** 2 <= radius**2)


def iou(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize("center", [(60.0, 75.0), (40.3, 100.8), (10.0, 75.0)])
def test_completing_a_whole_cell_keeps_it(learned: ShapeCode, center: tuple[float, float]) -> None:
    whole = disc(center, 30)
    probabilities = complete(learned, whole)
    assert probabilities.shape == whole.shape
    assert probabilities.dtype == np.float32
    assert iou(probabilities >= 0.5, whole) > 0.85


class Filler(ShapeCode):
    """Draws all of its square, whatever it is given."""

    def decode(self, embedded: Tensor) -> Tensor:
        return torch.full((len(embedded), 1, 32, 32), 50.0)


@pytest.mark.parametrize("grow", [0.0, 0.25, 0.5])
def test_completing_reaches_as_far_as_said(grow: float) -> None:
    """A box of 40 x 20 pixels grows by its share on each side, and ends at the picture's edge."""
    mask = np.zeros((100, 90), bool)
    mask[30:70, 4:24] = True
    expected = np.zeros_like(mask)
    expected[30 - round(40 * grow) : 70 + round(40 * grow), max(0, 4 - round(20 * grow)) : 24 + round(20 * grow)] = True
    assert np.array_equal(complete(Filler(ShapeCodeSettings()), mask, grow) > 0.6, expected)


def test_nothing_is_completed_to_nothing(learned: ShapeCode) -> None:
    assert not complete(learned, np.zeros((40, 50), bool)).any()
    with pytest.raises(ValueError, match="shape \\(2, 40, 50\\)"):
        complete(learned, np.zeros((2, 40, 50), bool))


def test_grown_boxes_hold_what_they_grew_from() -> None:
    boxes = jitter(torch.tensor([[10.0, 20, 50, 90]]).repeat(9, 1), torch.Generator().manual_seed(0))
    more = grown(boxes, 0.25)
    sizes = boxes[:, 2:] - boxes[:, :2]
    torch.testing.assert_close(more[:, 2:] - more[:, :2], 1.5 * sizes)
    torch.testing.assert_close(more[:, 2:] + more[:, :2], boxes[:, 2:] + boxes[:, :2])
