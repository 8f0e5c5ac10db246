"""Choice of device and precision."""

import torch

from napari_embryo.settings import Device, Precision


def choose_device(wanted: Device) -> torch.device:
    """The device to compute on.

    Raises
    ------
    ValueError
        If the requested device is not available; the message says why.
    """
    if wanted == "auto":
        return torch.device(next(name for name, reason in devices().items() if reason is None))
    reason = devices()[wanted]
    if reason is not None:
        raise ValueError(f"device {wanted!r} cannot be used: {reason}; use 'auto' or 'cpu'")
    return torch.device(wanted)


def devices() -> dict[str, str | None]:
    """Every kind of device, fastest first, with the reason why it cannot be used, or None."""
    return {"cuda": _no_cuda(), "mps": _no_mps(), "cpu": None}


def _no_cuda() -> str | None:
    if torch.version.cuda is None and torch.version.hip is None:
        return f"torch {torch.__version__} is built without CUDA; reinstall it from pytorch.org with CUDA"
    if not torch.cuda.is_available():
        return "no NVIDIA graphics card with a working driver was found"
    return None


def _no_mps() -> str | None:
    return None if torch.backends.mps.is_available() else "no Apple graphics processor was found"


def check_precision(precision: Precision, device: torch.device) -> None:
    """Refuse float16 on devices that do not support it.

    Raises
    ------
    ValueError
        If the device is a processor.
    """
    if precision == "float16" and device.type == "cpu":
        raise ValueError(
            "precision: 'float16' was given, but processors do not support it; use 'bfloat16' or 'float32', or a "
            "graphics card"
        )


def half_type(precision: Precision, device: torch.device) -> torch.dtype | None:
    """The 16-bit type of mixed precision, or None for float32, as on a processor that replaces a full card."""
    if precision == "float16":
        return None if device.type == "cpu" else torch.float16
    return torch.bfloat16 if use_bfloat16(precision, device) else None


def use_bfloat16(precision: Precision, device: torch.device) -> bool:
    """Whether to compute in bfloat16; with ``auto`` only if the processor supports it natively."""
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())


def is_out_of_memory(error: RuntimeError) -> bool:
    said = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in said or "can't allocate memory" in said
