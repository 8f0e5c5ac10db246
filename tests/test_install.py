"""scripts/install.py: which PyTorch is taken, what the demo needs, and when nothing is installed again."""

import importlib.util
import shutil
import tomllib
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

OFFERS = "torch (9.1.2+cpu)\nAvailable versions: 9.1.2+cpu, 9.1.1+cpu\n"
LACKS = "torch (9.1.2)\nAvailable versions: 9.1.2, 9.1.1+cpu\n"
USUAL = ["torch==9.1.2", "torchvision==0.4.5"]
SMALL = ["--extra-index-url", "https://download.pytorch.org/whl/cpu", "torch==9.1.2+cpu", "torchvision==0.4.5+cpu"]


@pytest.fixture
def checkout(tmp_path: Path, repository: Path) -> Path:
    """The files that the script reads, and the script."""
    root = tmp_path / "checkout"
    package = root / "src" / "napari_embryo"
    package.mkdir(parents=True)
    try:
        (package / "napari.yaml").symlink_to("../../napari.yaml")
    except OSError:
        pytest.skip("links cannot be made here")
    (package / "code.py").write_text("1")
    for name in ("pyproject.toml", "napari.yaml"):
        (root / name).write_text(name)
    (root / "constraints.txt").write_text("six==1\ntorch==9.1.2\ntorchvision==0.4.5\n")
    (root / "scripts").mkdir()
    shutil.copy(repository / "scripts" / "install.py", root / "scripts")
    return root


@pytest.fixture
def script(checkout: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("install_script", checkout / "scripts" / "install.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Pip:
    """What pip is asked to install; it ends with what one wishes."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.ends_with = 0

    def __call__(self, arguments: list[str]) -> int:
        self.asked.append(arguments)
        return self.ends_with


@pytest.fixture
def pip(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Pip:
    """On a Linux with an NVIDIA card, so that no index is asked."""
    pip = Pip()
    monkeypatch.setattr(script, "pip_install", pip)
    monkeypatch.setattr(script, "has_nvidia", lambda: True)
    return pip


@pytest.mark.parametrize(
    ("platform", "nvidia", "environ", "index", "taken", "says"),
    [
        ("linux", False, {}, OFFERS, SMALL, "about 200 MB"),
        ("linux", False, {}, LACKS, USUAL, "several GB"),
        ("linux", False, {}, "", USUAL, "several GB"),
        ("linux", True, {}, OFFERS, USUAL, "from the package index"),
        ("darwin", False, {}, OFFERS, USUAL, "from the package index"),
        ("win32", False, {}, OFFERS, USUAL, "from the package index"),
        ("linux", False, {"PIP_EXTRA_INDEX_URL": "https://download.pytorch.org/whl/cu130"}, OFFERS, USUAL, ""),
        ("linux", False, {"PIP_INDEX_URL": "https://mirror.example/simple"}, OFFERS, SMALL, ""),
    ],
)
def test_which_pytorch(
    script: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    platform: str,
    nvidia: bool,
    environ: dict[str, str],
    index: str,
    taken: list[str],
    says: str,
) -> None:
    monkeypatch.setattr(script.sys, "platform", platform)
    monkeypatch.setattr(script, "has_nvidia", lambda: nvidia)
    monkeypatch.setattr(script.os, "environ", environ)
    monkeypatch.setattr(script, "listed", lambda name, url: index)
    assert script.torch_arguments() == taken
    assert says in capsys.readouterr().out


def test_the_demo_needs_no_group_of_the_tests(script: ModuleType, pip: Pip, tmp_path: Path, checkout: Path) -> None:
    assert script.install("demo", tmp_path) == 0
    assert pip.asked == [USUAL, ["--editable", f"{checkout}[all,cluster]"]]


def test_the_tests_take_every_group(script: ModuleType, repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))
    assert {*script.GROUPS["tests"]} == {*project["dependency-groups"]} - {"dev"}


@pytest.mark.parametrize(
    ("changed", "again"),
    [
        (None, False),
        ("src/napari_embryo/code.py", False),
        ("napari.yaml", True),
        ("pyproject.toml", True),
        ("constraints.txt", True),
        ("scripts/install.py", True),
    ],
)
def test_nothing_is_installed_again_until_the_requirements_change(
    script: ModuleType, pip: Pip, tmp_path: Path, checkout: Path, changed: str | None, again: bool
) -> None:
    script.install("demo", tmp_path)
    pip.asked.clear()
    if changed:
        with (checkout / changed).open("a") as file:
            file.write("\n# changed")
    assert script.install("demo", tmp_path) == 0
    assert bool(pip.asked) is again


def test_a_checkout_without_links_is_not_editable_and_follows_the_code(
    script: ModuleType, pip: Pip, tmp_path: Path, checkout: Path
) -> None:
    """As Git leaves it on Windows."""
    manifest = checkout / "src" / "napari_embryo" / "napari.yaml"
    manifest.unlink()
    manifest.write_text("../../napari.yaml")
    for _ in range(2):
        script.install("demo", tmp_path)
    assert pip.asked == [USUAL, [f"{checkout}[all,cluster]"]]
    (checkout / "src" / "napari_embryo" / "code.py").write_text("2")
    script.install("demo", tmp_path)
    assert len(pip.asked) == 4


def test_what_failed_is_tried_again(script: ModuleType, pip: Pip, tmp_path: Path) -> None:
    pip.ends_with = 7
    assert script.install("demo", tmp_path) == 7
    assert pip.asked == [USUAL]
    pip.ends_with = 0
    assert script.install("demo", tmp_path) == 0
    assert len(pip.asked) == 3


def test_every_requirement_is_pinned(repository: Path) -> None:
    """So that the same environment is made tomorrow."""
    declared = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))
    lists = [
        declared["project"]["dependencies"],
        *declared["project"]["optional-dependencies"].values(),
        *(declared["dependency-groups"][name] for name in ("test", "lint", "bench")),
    ]
    constraints = (repository / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert names(line for lines in lists for line in lines) <= names(
        line for line in constraints if line and not line.startswith("#")
    )


def names(requirements: Iterable[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in requirements}
