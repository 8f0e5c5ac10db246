"""Provenance of a result."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from napari_embryo import __version__, io
from napari_embryo.image import EmbryoImage
from napari_embryo.predict import Predictor

KEPT = ("focus", "focus_plane", "runs", "frame_files")
"""Metadata of an image that its results keep."""


def provenance_of(image: EmbryoImage, predictor: Predictor) -> dict[str, Any]:
    """Provenance stored in every result: names of files, but not the folders they lie in."""
    told = {
        "program": f"napari-embryo {__version__}",
        "family": predictor.info.model.family,
        "weights": predictor.settings.weights,
        "weights_sha256": predictor.sha256,
        **({"ratio_weights_sha256": predictor.quantifier.sha256} if predictor.quantifier else {}),
        "settings": predictor.settings.model_dump(mode="json"),
        "source": _source(image),
        **{name: image.metadata[name] for name in KEPT if name in image.metadata},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    plain: dict[str, Any] = io.without_folders(told)
    return plain


def _source(image: EmbryoImage) -> str:
    path = image.metadata.get("source")
    return Path(path).name if path else image.name
