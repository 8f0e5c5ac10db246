"""``run.json``: everything needed to repeat a run."""

import json
import platform
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from napari_embryo import __version__
from napari_embryo.batch.job import Plan, printable
from napari_embryo.batch.work import Work
from napari_embryo.io import replacing

RUN = "run.json"


def write_record(plan: Plan, work: Work) -> None:
    """Record program, weights, settings, and the results of each file."""
    about = {
        "program": f"napari-embryo {__version__}",
        "commit": commit(),
        "python": sys.version.split()[0],
        "packages": {name: _version(name) for name in ("torch", "torchvision", "numpy", "scikit-image", "tifffile")},
        "platform": platform.platform(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "weights": work.weights,
        "weights_sha256": work.weights_sha256,
        "settings": plan.settings.model_dump(mode="json"),
        "sources": [printable(str(source)) for source in plan.sources],
        "left_out": [{"file": left.path, "reason": left.reason} for left in plan.left_out],
    }
    with replacing(plan.out / RUN) as draft, draft.open("w", encoding="utf-8") as file:
        head = json.dumps(about, indent=2, ensure_ascii=False)
        file.write(head.removesuffix("\n}"))
        file.write(',\n  "inputs": [')
        # One per line: a batch may have a million of them.
        file.writelines(_separated(_inputs(plan)))
        file.write("\n  ]\n}\n")


def _inputs(plan: Plan) -> Iterator[str]:
    for job in plan.jobs:
        said: dict[str, Any] = {"image": job.name, "files": [printable(file) for file in job.files]}
        said |= {"folder": printable(job.root)} if len(plan.sources) > 1 else {}
        yield json.dumps(said | ({"why": job.why} if job.why else {}), ensure_ascii=False)


def _separated(lines: Iterator[str]) -> Iterator[str]:
    separator = "\n    "
    for line in lines:
        yield separator + line
        separator = ",\n    "


def commit() -> str | None:
    """The revision from which the program was installed or checked out, if known."""
    try:
        said = metadata.distribution("napari-embryo").read_text("direct_url.json") or "{}"
        known = json.loads(said).get("vcs_info", {}).get("commit_id")
    except (metadata.PackageNotFoundError, ValueError):
        known = None
    return known or _commit_of(Path(__file__).parents[3] / ".git")


def _commit_of(git: Path) -> str | None:
    try:
        if git.is_file():  # a worktree
            git = Path(git.read_text().removeprefix("gitdir:").strip())
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        home = (git / "commondir").read_text().strip() if (git / "commondir").exists() else "."
        return (git / home / head.removeprefix("ref: ")).read_text().strip()
    except OSError:
        return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
