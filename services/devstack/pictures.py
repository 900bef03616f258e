"""The picture work of the pretend GPU: real edits, made with Pillow, the same for the same seed."""

import colorsys
import io
from collections.abc import Sequence
from random import Random

from PIL import Image, ImageChops, ImageFilter, ImageOps

MAX_PIXELS = 1024 * 1024
LINE_ART_WORDS = ("线稿", "sketch", "line art")

_GAP_PX = 12
_BACKDROP_BLUR_PX = 24
# Fractions of the frame: how far one step of the camera narrows the side it moves towards, and how much of the frame
# a full zoom takes away (in) or adds (out). Two steps of 0.11 leave more than half of a side: still a picture.
_TURN_PER_STEP = 0.11
_ZOOM_IN = 0.45
_ZOOM_OUT = 0.6
_HAND_SHAKE = 0.01

Point = tuple[float, float]


class UndecodablePictureError(Exception):
    """The bytes are not a picture: nothing to retry."""


def decode_picture(data: bytes) -> Image.Image:
    """Read a picture of any format as upright RGB of at most `MAX_PIXELS`.

    Raises:
        UndecodablePictureError: `data` is empty, truncated, a decompression bomb, or no picture at all.
    """
    try:
        with Image.open(io.BytesIO(data)) as opened:
            upright = ImageOps.exif_transpose(opened)
            picture = Image.new("RGB", upright.size, "white")
            layer = upright.convert("RGBA")
            picture.paste(layer, mask=layer)
    except Exception as exc:  # broken files raise nearly anything: OSError, SyntaxError, struct.error, ...
        raise UndecodablePictureError(str(exc)) from exc
    return _fit(picture)


def encode_png(picture: Image.Image) -> bytes:
    """Return `picture` as the bytes of a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def wants_line_art(prompt: str) -> bool:
    """Tell whether a prompt asks for a line drawing rather than a repaint."""
    words = prompt.lower()
    return any(word in words for word in LINE_ART_WORDS)


def edit_picture(pictures: Sequence[Image.Image], *, prompt: str, seed: int, strength: float = 1.0) -> Image.Image:
    """Compose `pictures` side by side and edit them the way `prompt` asks.

    Args:
        pictures: The picture to edit, then the references; at least one.
        prompt: One of `LINE_ART_WORDS` in it gives a drawing; anything else a repaint in colours of its own.
        seed: The same seed, prompt and pictures give the same result.
        strength: 0 leaves the picture alone, 1 applies the whole edit (ComfyUI calls it `denoise`).
    """
    joined = _join(pictures)
    dice = Random(f"{seed}:{prompt}")
    edited = _draw_lines(joined, dice) if wants_line_art(prompt) else _repaint(joined, dice)
    return Image.blend(joined, edited, strength)


def move_camera(picture: Image.Image, *, vertical: float, horizontal: float, zoom: float, seed: int) -> Image.Image:
    """Show `picture` as if the camera had moved: a perspective warp of the same size.

    Args:
        picture: The picture in front of the camera.
        vertical: Steps upwards (positive) or downwards, -2..2.
        horizontal: Steps to the right (positive) or left, -2..2.
        zoom: -1 (far) .. 1 (near); near crops, far shows a blurred backdrop round the picture.
        seed: Moves the corners by up to one percent, as a second shot by hand would.
    """
    corners = _aim(vertical=vertical, horizontal=horizontal, zoom=zoom, dice=Random(seed))
    warped = picture.convert("RGBA").transform(
        picture.size,
        Image.Transform.PERSPECTIVE,
        _perspective(corners, *picture.size),
        resample=Image.Resampling.BICUBIC,
        fillcolor=(0, 0, 0, 0),
    )
    backdrop = picture.filter(ImageFilter.GaussianBlur(_BACKDROP_BLUR_PX))
    backdrop.paste(warped, mask=warped)
    return backdrop


def _fit(picture: Image.Image) -> Image.Image:
    width, height = picture.size
    if width * height <= MAX_PIXELS:
        return picture
    scale = (MAX_PIXELS / (width * height)) ** 0.5
    return picture.resize((max(1, int(width * scale)), max(1, int(height * scale))), Image.Resampling.LANCZOS)


def _join(pictures: Sequence[Image.Image]) -> Image.Image:
    height = pictures[0].height
    scaled = [pictures[0], *(_scale_to_height(picture, height) for picture in pictures[1:])]
    width = sum(picture.width for picture in scaled) + _GAP_PX * (len(scaled) - 1)
    joined = Image.new("RGB", (width, height), "white")
    left = 0
    for picture in scaled:
        joined.paste(picture, (left, 0))
        left += picture.width + _GAP_PX
    return _fit(joined)


def _scale_to_height(picture: Image.Image, height: int) -> Image.Image:
    width = max(1, round(picture.width * height / picture.height))
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def _draw_lines(picture: Image.Image, dice: Random) -> Image.Image:
    # A difference of Gaussians is dark only beside an edge, so flat areas stay paper white. Taking the strongest of the
    # three channels keeps edges between colours of the same brightness.
    fine = picture.filter(ImageFilter.GaussianBlur(1))
    coarse = picture.filter(ImageFilter.GaussianBlur(3))
    red, green, blue = ImageChops.subtract(coarse, fine).split()
    edges = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    pressure = dice.uniform(9.0, 12.0)
    return edges.point([max(0, 255 - int(max(0, level - 2) * pressure)) for level in range(256)]).convert("RGB")


def _repaint(picture: Image.Image, dice: Random) -> Image.Image:
    hue = dice.random()
    duotone = ImageOps.colorize(
        ImageOps.autocontrast(picture.convert("L")),
        black=_colour(hue, saturation=0.8, value=0.22),
        mid=_colour(hue + 0.12, saturation=0.6, value=0.7),
        white=_colour(hue + 0.3, saturation=0.15, value=1.0),
    )
    poster = ImageOps.posterize(picture.filter(ImageFilter.MedianFilter(5)), 3)
    return Image.blend(poster, duotone, 0.6)


def _colour(hue: float, *, saturation: float, value: float) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _aim(*, vertical: float, horizontal: float, zoom: float, dice: Random) -> list[Point]:
    """Return where the frame's corners (clockwise from top left) look in the picture, as fractions of its size."""
    left, right = max(0.0, -horizontal) * _TURN_PER_STEP, max(0.0, horizontal) * _TURN_PER_STEP
    top, bottom = max(0.0, vertical) * _TURN_PER_STEP, max(0.0, -vertical) * _TURN_PER_STEP
    corners = [(top, left), (1 - top, right), (1 - bottom, 1 - right), (bottom, 1 - left)]
    scale = 1 - zoom * (_ZOOM_IN if zoom > 0 else _ZOOM_OUT)
    return [(0.5 + (x - 0.5) * scale + _shake(dice), 0.5 + (y - 0.5) * scale + _shake(dice)) for x, y in corners]


def _shake(dice: Random) -> float:
    return dice.uniform(-_HAND_SHAKE, _HAND_SHAKE)


def _perspective(corners: Sequence[Point], width: int, height: int) -> tuple[float, ...]:
    """Return Pillow's eight coefficients that map the frame onto `corners` (P. Heckbert, 1989, section 2.2.3)."""
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = corners
    dx1, dx2, sum_x = x1 - x2, x3 - x2, x0 - x1 + x2 - x3
    dy1, dy2, sum_y = y1 - y2, y3 - y2, y0 - y1 + y2 - y3
    determinant = dx1 * dy2 - dx2 * dy1
    g = (sum_x * dy2 - dx2 * sum_y) / determinant
    h = (dx1 * sum_y - sum_x * dy1) / determinant
    a, b = x1 - x0 + g * x1, x3 - x0 + h * x3
    d, e = y1 - y0 + g * y1, y3 - y0 + h * y3
    aspect = width / height
    return a, b * aspect, x0 * width, d / aspect, e, y0 * height, g / width, h / height
