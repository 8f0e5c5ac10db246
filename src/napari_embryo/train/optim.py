"""Which parts learn, and how fast."""

from collections.abc import Iterator
from math import cos, pi

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from napari_embryo.settings import TrainSettings

ENCODER, REGRESSION = "encoder", "regression"
"""Parts of a network with their own learning rate."""
FROZEN = "shape"
"""A part that was trained beforehand and stays frozen: the shape code within a detector."""
FIRST_SHARE, LAST_SHARE = 1 / 25, 1 / 250_000
"""one-cycle: fraction of the peak rate in the first and the last step, as in torch."""
BETA, LOW_BETA, HIGH_BETA = 0.9, 0.85, 0.95
"""Adam's beta1; one-cycle lowers it while the rate is high, as in torch."""

_LAST = {"head": ("head", REGRESSION), "regression": (REGRESSION,)}


def learns(name: str, settings: TrainSettings) -> bool:
    """Whether a parameter or module of this name learns."""
    part = _part(name)
    if part == FROZEN:
        return False
    if settings.parts in _LAST:
        return part in _LAST[settings.parts]
    return part != ENCODER or (settings.parts == "all" and settings.encoder_rate > 0)


def _part(name: str) -> str:
    return name.partition(".")[0]


def freeze(model: nn.Module, settings: TrainSettings) -> None:
    """Enable gradients only for the parts that learn.

    Raises
    ------
    ValueError
        If the network has no part of this name.
    """
    children = dict(model.named_children())
    needed = {"all": None, "decoder": ENCODER, "head": "head", "regression": REGRESSION}[settings.parts]
    if needed is not None and needed not in children:
        raise ValueError(
            f"parts: {settings.parts!r} was given, but this network ({', '.join(children)}) has no {needed}; use 'all'"
        )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(learns(name, settings))


def set_mode(model: nn.Module, settings: TrainSettings, keep_statistics: bool) -> None:
    """Put what learns into train mode and the rest into eval mode: no dropout, frozen batch normalization."""
    model.train()
    for name, child in model.named_children():
        if not learns(name, settings):
            child.eval()
    if keep_statistics:
        for norm in batch_norms(model):
            norm.eval()


def batch_norms(model: nn.Module) -> Iterator[nn.Module]:
    """All batch normalization layers of a network."""
    return (module for module in model.modules() if isinstance(module, _BatchNorm))


def build_optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """AdamW or Adam over the parameters that learn; ``peak`` of a parameter group is its highest rate."""
    groups = []
    shares = {ENCODER: settings.encoder_rate, REGRESSION: settings.regression_rate}
    for part in (ENCODER, REGRESSION, None):
        named = ((n, p) for n, p in model.named_parameters() if p.requires_grad)
        own = [p for n, p in named if (_part(n) if _part(n) in shares else None) == part]
        share = shares.get(part, 1.0) if part else 1.0
        peak = settings.learning_rate * share
        groups += [{"params": own, "lr": peak, "peak": peak}] if own else []
    kinds: dict[str, type[torch.optim.Adam]] = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}
    return kinds[settings.optimizer](groups, weight_decay=settings.weight_decay)


def set_rate(optimizer: torch.optim.Optimizer, settings: TrainSettings, step: int, steps: int) -> float:
    """Set rate and momentum for step ``step`` (from 0) of ``steps`` and return the decoder's rate."""
    share, beta = schedule(settings, step, steps)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share
        group["betas"] = (beta, group["betas"][1])
    return float(optimizer.param_groups[-1]["lr"])


def schedule(settings: TrainSettings, step: int, steps: int) -> tuple[float, float]:
    """Fraction of the highest rate, and Adam's beta1, in step ``step`` (from 0) of ``steps``.

    ``one-cycle`` rises along a cosine during ``warm_up`` of the steps and falls almost to zero along another;
    ``cosine`` falls to 0 after the last step; ``constant`` does not change.
    """
    if settings.schedule == "constant":
        return 1.0, BETA
    if settings.schedule == "cosine":
        return _along_cosine(1, 0, step / steps), BETA
    # With a single rising step the rate would start at the top.
    top = max(1.5, settings.warm_up * steps) - 1
    if step <= top or steps == 1:
        part = step / top if steps > 1 else 1.0
        return _along_cosine(FIRST_SHARE, 1, part), _along_cosine(HIGH_BETA, LOW_BETA, part)
    part = (step - top) / (steps - 1 - top)
    return _along_cosine(1, LAST_SHARE, part), _along_cosine(LOW_BETA, HIGH_BETA, part)


def _along_cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) * (1 + cos(pi * part)) / 2
