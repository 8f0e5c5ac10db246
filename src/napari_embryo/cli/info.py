"""``info``: information for bug reports."""

import platform
from importlib.metadata import PackageNotFoundError, version

from rich.table import Table

from napari_embryo import __version__, library
from napari_embryo.cli.terminal import console
from napari_embryo.families import FAMILIES


def info() -> None:
    """Print versions, torch build, devices, memory, and the location of weights."""
    import psutil
    import torch

    from napari_embryo.predict import devices

    table = Table(show_header=False, box=None)
    table.add_row("napari-embryo", __version__)
    table.add_row("Python", f"{platform.python_version()} on {platform.platform()}")
    for name in ("napari", "numpy", "torchvision", "scikit-image", "tifffile"):
        table.add_row(name, _version(name))
    table.add_row("torch", f"{torch.__version__}, {_torch_build()}")
    for name, reason in devices().items():
        table.add_row(f"device {name}", _device_text(name) if reason is None else f"not usable: {reason}")
    memory = psutil.virtual_memory()
    table.add_row("memory", f"{memory.total / 2**30:.1f} GiB, {memory.available / 2**30:.1f} GiB free")
    for label, text in _weights_rows():
        table.add_row(label, text)
    table.add_row("your models", f"{', '.join(library.in_library()) or 'none'} ({library.library()})")
    console.print(table)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _torch_build() -> str:
    import torch

    return f"CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"


def _device_text(name: str) -> str:
    import torch

    if name == "cuda":
        card = torch.cuda.get_device_properties(0)
        return f"{card.name}, {card.total_memory / 2**30:.1f} GiB"
    return f"usable, {torch.get_num_threads()} threads" if name == "cpu" else "usable"


def _weights_rows() -> list[tuple[str, str]]:
    from napari_embryo.models.checkpoint import bundled, file_sha256

    rows = []
    for name, family in FAMILIES.items():
        if family.ships:
            path = bundled(name)
            rows.append((f"weights {name}", f"{path} (sha256 {file_sha256(path)[:12]})"))
    return rows or [("weights", "none bundled with this version")]
