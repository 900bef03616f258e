"""`python -m services.devstack.simulate`, as people call it, and the pages it has made."""

from contextlib import redirect_stdout
from pathlib import Path
from xml.etree import ElementTree

import pytest

from services.devstack import simulate
from services.devstack.simulation.traces import all_traces

DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one call has made: the two pages, and what it has printed."""
    folder = tmp_path_factory.mktemp("docs")
    with (folder / "printed.txt").open("w", encoding="utf-8") as printed, redirect_stdout(printed):
        simulate.main(["--markdown", str(folder / "simulation.md"), "--plot", str(folder / "simulation.svg")])
    return folder


@pytest.mark.parametrize("name", ["simulation.md", "simulation.svg"])
def test_the_pages_are_what_the_command_makes(pages: Path, name: str) -> None:
    """If this fails: python -m services.devstack.simulate --markdown docs/simulation.md --plot docs/simulation.svg."""
    assert (DOCS / name).read_text(encoding="utf-8") == (pages / name).read_text(encoding="utf-8")


def test_the_picture_is_one(pages: Path) -> None:
    root = ElementTree.parse(pages / "simulation.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    height = float(root.attrib["height"])
    lowest = max(float(part.attrib["y"]) for part in root.iter() if "y" in part.attrib)
    assert lowest < height


def test_the_terminal_shows_every_day(pages: Path) -> None:
    shown = (pages / "printed.txt").read_text(encoding="utf-8")
    assert shown.count("ours") == shown.count("original") == len(all_traces(1))


def test_a_page_without_its_picture_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        simulate.main(["--markdown", "page.md"])
    assert "--plot" in capsys.readouterr().err
