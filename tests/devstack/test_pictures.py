"""The pretend GPU's picture work: visible, honest, repeatable."""

import io
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageStat

from services.devstack import pictures

SAMPLES = sorted((Path(pictures.__file__).parent / "samples").glob("*.jpg"))


def load(name: str = "house-on-a-hill.jpg") -> Image.Image:
    return pictures.decode_picture((SAMPLES[0].parent / name).read_bytes())


def difference(one: Image.Image, other: Image.Image) -> float:
    """Mean difference per channel, 0..255."""
    means = ImageStat.Stat(ImageChops.difference(one, other)).mean
    return sum(means) / len(means)


def edit(picture: Image.Image, *, prompt: str = "sketch", seed: int = 1) -> Image.Image:
    return pictures.edit_picture([picture], prompt=prompt, seed=seed)


def shoot(*, vertical: float = 0, horizontal: float = 0, zoom: float = 0, seed: int = 1) -> Image.Image:
    return pictures.move_camera(load(), vertical=vertical, horizontal=horizontal, zoom=zoom, seed=seed)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_samples_are_small_pictures(sample: Path) -> None:
    assert sample.stat().st_size < 40_000
    assert min(load(sample.name).size) >= 400


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
@pytest.mark.parametrize("prompt", ["提取线稿", "a pencil Sketch", "clean LINE ART, please"])
def test_line_art_is_mostly_white_paper_with_some_dark_lines_and_no_colour(sample: Path, prompt: str) -> None:
    drawing = edit(load(sample.name), prompt=prompt)
    shares = drawing.convert("L").histogram()
    pixels = drawing.width * drawing.height

    assert sum(shares[230:]) / pixels > 0.75
    assert 0.005 < sum(shares[:128]) / pixels < 0.2
    red, green, blue = drawing.split()
    assert red.tobytes() == green.tobytes() == blue.tobytes()


def test_any_other_prompt_repaints_visibly_without_turning_the_picture_white() -> None:
    picture = load()

    painted = edit(picture, prompt="an evening in autumn")

    assert painted.size == picture.size
    assert difference(picture, painted) > 15
    assert ImageStat.Stat(painted.convert("L")).stddev[0] > 20


@pytest.mark.parametrize("prompt", ["sketch", "an evening in autumn"])
def test_an_edit_is_decided_by_its_seed(prompt: str) -> None:
    picture = load("bottle.jpg")

    assert edit(picture, prompt=prompt, seed=3).tobytes() == edit(picture, prompt=prompt, seed=3).tobytes()
    assert edit(picture, prompt=prompt, seed=3).tobytes() != edit(picture, prompt=prompt, seed=4).tobytes()


def test_an_edit_of_no_strength_leaves_the_picture_alone() -> None:
    picture = load()

    assert pictures.edit_picture([picture], prompt="sketch", seed=1, strength=0).tobytes() == picture.tobytes()


def test_references_stand_beside_the_picture_at_its_height() -> None:
    house, portrait, bottle = load(), load("portrait.jpg"), load("bottle.jpg")

    joined = pictures.edit_picture([house, portrait, bottle], prompt="together", seed=1, strength=0)

    assert joined.crop((0, 0, *house.size)).tobytes() == house.tobytes()
    assert joined.height == house.height
    assert joined.width == pytest.approx(768 + 2 * 410 + 2 * 12, abs=2)


@pytest.mark.parametrize(
    ("vertical", "horizontal", "zoom"),
    [(0, 2, 0), (0, -2, 0), (2, 0, 0), (-2, 0, 0), (0, 0, 1), (0, 0, -1)],
    ids=["right", "left", "up", "down", "near", "far"],
)
def test_each_camera_move_changes_the_picture_and_keeps_its_size(
    vertical: float, horizontal: float, zoom: float
) -> None:
    moved = shoot(vertical=vertical, horizontal=horizontal, zoom=zoom)

    assert moved.size == load().size
    assert difference(moved, shoot()) > 8


def test_camera_moves_to_opposite_sides_differ() -> None:
    assert difference(shoot(horizontal=2), shoot(horizontal=-2)) > 8
    assert difference(shoot(vertical=2), shoot(vertical=-2)) > 8


def test_no_camera_move_is_nearly_the_picture_itself() -> None:
    assert difference(shoot(), load()) < 12


def test_zooming_in_magnifies_the_middle() -> None:
    picture = load()
    width, height = picture.size
    box = (width * 0.225, height * 0.225, width * 0.775, height * 0.775)

    # Zoom 1 takes 0.45 of the frame away, half of it on each side; the hand shakes by at most a percent.
    assert difference(shoot(zoom=1), picture.resize(picture.size, box=box)) < 12


def test_a_camera_move_is_decided_by_its_seed() -> None:
    assert shoot(horizontal=1, seed=3).tobytes() == shoot(horizontal=1, seed=3).tobytes()
    assert shoot(horizontal=1, seed=3).tobytes() != shoot(horizontal=1, seed=4).tobytes()


def test_perspective_keeps_the_corners_where_they_are_aimed() -> None:
    corners = [(0.1, 0.2), (0.9, 0.1), (0.8, 0.9), (0.2, 0.7)]
    a, b, c, d, e, f, g, h = pictures._perspective(corners, 200, 100)

    seen = [
        ((a * x + b * y + c) / (g * x + h * y + 1) / 200, (d * x + e * y + f) / (g * x + h * y + 1) / 100)
        for x, y in ((0, 0), (200, 0), (200, 100), (0, 100))
    ]

    for (x, y), corner in zip(seen, corners, strict=True):
        assert (x, y) == pytest.approx(corner)


@pytest.mark.parametrize("data", [b"", b"no picture", (SAMPLES[0]).read_bytes()[:3000]])
def test_bytes_that_are_no_picture_are_refused(data: bytes) -> None:
    with pytest.raises(pictures.UndecodablePictureError):
        pictures.decode_picture(data)


def test_transparency_becomes_white_and_a_large_picture_is_made_smaller() -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (3000, 1000), (255, 0, 0, 0)).save(buffer, format="PNG")

    picture = pictures.decode_picture(buffer.getvalue())

    assert picture.mode == "RGB"
    assert picture.getpixel((5, 5)) == (255, 255, 255)
    assert picture.width * picture.height <= pictures.MAX_PIXELS
    assert picture.width / picture.height == pytest.approx(3, rel=0.01)


def test_a_result_is_a_png_of_the_same_pixels() -> None:
    picture = load("portrait.jpg")

    with Image.open(io.BytesIO(pictures.encode_png(picture))) as reread:
        assert reread.format == "PNG"
        assert reread.tobytes() == picture.tobytes()
