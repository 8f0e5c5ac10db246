"""What CONTRIBUTING, the README and docs/ say of the code is so."""

import re
import tomllib
from collections.abc import Iterator
from importlib import import_module
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest

from napari_embryo import draw_blastocyst

REPOSITORY = Path(__file__).parents[1]
FOR_DEVELOPERS = ("CONTRIBUTING.md", "docs/architecture.md", "docs/decisions.md")
PAGES = sorted(
    path.relative_to(REPOSITORY).as_posix()
    for pattern in ("*.md", "docs/*.md", "src/napari_embryo/weights/*.md")
    for path in REPOSITORY.glob(pattern)
)
HOMES = (REPOSITORY, REPOSITORY / "src" / "napari_embryo")
FILE = re.compile(r"[\w./-]+(/|\.(cff|ini|md|png|py|svg|toml|txt|yaml))")
OBJECT = re.compile(r"([a-z_]\w*(?:\.\w+)*):([A-Za-z_][\w.]*)")
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)[^)]*\)")


def text_of(page: str) -> str:
    return (REPOSITORY / page).read_text(encoding="utf-8")


def quoted(page: str) -> Iterator[str]:
    """What stands in backticks, outside blocks of code."""
    prose = re.sub(r"^```.*?^```", "", text_of(page), flags=re.DOTALL | re.MULTILINE)
    yield from re.findall(r"`([^`\n]+)`", prose)


@pytest.mark.parametrize("page", FOR_DEVELOPERS)
def test_files_exist(page: str) -> None:
    files = [word for word in quoted(page) if FILE.fullmatch(word) and "NEW" not in word]
    assert [file for file in files if not any((home / file).exists() for home in HOMES)] == []


@pytest.mark.parametrize("page", FOR_DEVELOPERS)
def test_names_of_the_code_exist(page: str) -> None:
    for module, name in (found.groups() for word in quoted(page) if (found := OBJECT.fullmatch(word))):
        attrgetter(name)(import_module(f"napari_embryo.{module}"))


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    home = (REPOSITORY / page).parent
    assert [link for link in LINK.findall(text_of(page)) if not (home / link).exists()] == []


def test_the_patterns_find_what_they_look_for() -> None:
    """Else the tests above would pass for nothing."""
    words = [*quoted("docs/architecture.md")]
    assert sum(FILE.fullmatch(word) is not None for word in words) > 5
    assert sum(OBJECT.fullmatch(word) is not None for word in words) > 20
    assert len(LINK.findall(text_of("README.md"))) > 5


def test_layers_are_those_that_are_checked() -> None:
    contracts = tomllib.loads(text_of("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    checked = next(each["layers"] for each in contracts if each.get("containers") == ["napari_embryo"])
    section = text_of("docs/architecture.md").partition("## Layers")[2].partition("\n## ")[0]
    rows = [re.findall(r"`(\w+)`", line.split("|")[1]) for line in section.splitlines() if line.startswith("| `")]
    assert [sorted(row) for row in rows] == [sorted(layer.split(" | ")) for layer in checked]


def test_the_example_of_the_readme(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It prints areas near those that were drawn."""
    (example,) = re.findall(r"^```python\n(.*?)^```", text_of("README.md"), re.DOTALL | re.MULTILINE)
    exec(compile(example, "README.md", "exec"), {})
    printed = dict(re.findall(r"^(\w+): (\d+) µm²$", capsys.readouterr().out, re.MULTILINE))
    drawn = draw_blastocyst(seed=2)
    pixel = np.prod(drawn.pixel_size_um)
    expected = {name: drawn.stack((name,)).sum() * pixel for name in ("ICM", "TE", "ZP")}
    assert {name: float(area) for name, area in printed.items()} == pytest.approx(expected, rel=0.25)
