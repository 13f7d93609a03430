"""Draws photos of flowers, with NumPy alone."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from flowers_tpu.example_data.species import Species

_OVERSAMPLING = 2  # drawn at twice the size along each side, then averaged


def _rgb(code: str) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(code), np.uint8).astype(np.float32) / 255


_COLOURS = {
    name: _rgb(code)
    for name, code in {
        **{"white": "f6f4ee", "cream": "f2e6be", "yellow": "f9dc2c", "gold": "f2b011"},
        **{"orange": "f27b1d", "salmon": "f08a72", "red": "d9221f", "crimson": "8f1230"},
        **{"pink": "f2a0bd", "magenta": "dc3a93", "lilac": "c9a4dd", "purple": "93359c"},
        **{"violet": "6f4fc0", "indigo": "35358f", "blue": "3b6fd4", "sky": "8fc3ee"},
        **{"green": "8dbb4a", "brown": "6b3d1e", "black": "231a20"},
    }.items()
}
# Two colours to blend between: leaves, meadow, sky, soil, dusk, stone, shade, straw.
_BACKGROUNDS = [
    (_rgb(dark), _rgb(bright))
    for dark, bright in (
        *(("1f4a20", "4f8a3a"), ("5b8f3c", "a9c46a"), ("7fb2e0", "d5e6f2"), ("4a3424", "87674a")),
        *(("2b2d52", "8a6f8f"), ("6d6f6c", "a9aaa3"), ("0f1f18", "2d4a35"), ("8f7d4d", "cdbd86")),
    )
]
_LEAF = Species(1, "pointed", 1, "green", "green", "veins", "green", 0, "single")


class _Bloom(NamedTuple):
    """One flower in a photo; lengths as fractions of the photo's side, angles in radians."""

    x: float
    y: float
    radius: float
    turn: float  # where its first petal points
    tilt_axis: float | np.floating
    tilt: float | np.floating  # 1: seen from the front; less: foreshortened across the axis
    light: float | np.floating  # where the light comes from


def draw_photo(species: Species, image_size: int, rng: np.random.Generator) -> np.ndarray:
    """Draws one photo of a species, `[image_size, image_size, 3]` uint8."""
    canvas = _background(image_size * _OVERSAMPLING, rng)
    light, tilt_axis = rng.uniform(-np.pi, np.pi, 2).astype(np.float32)
    tilt = np.float32(rng.uniform(0.75, 1.0))

    def place(x: float, y: float, radius: float) -> _Bloom:
        turn = rng.uniform(-np.pi, np.pi)
        return _Bloom(float(x), float(y), float(radius), turn, tilt_axis, tilt, light)

    for _ in range(rng.integers(2, 6)):
        green = (rng.uniform(0.6, 1.5, 3) * (0.2, 0.42, 0.16)).astype(np.float32)
        x, y = rng.uniform(0.15, 0.85, 2)
        leaf = place(x, y, rng.uniform(0.2, 0.4))
        _paint_petals(canvas, leaf, _LEAF, 0, (green, 1.3 * green), np.ones(1, np.float32))
    warmth = rng.normal(0, 0.04, 3)
    main, second, centre = (
        np.clip(_COLOURS[name] + warmth + rng.normal(0, 0.03, 3), 0, 1).astype(np.float32)
        for name in (species.colour, species.second, species.centre)
    )
    for spot in _places(species.arrangement, rng):
        bloom = place(*spot)
        lengths = rng.uniform(0.9, 1.0, species.petals).astype(np.float32)
        _paint_shadow(canvas, bloom)
        for ring in range(species.rings):
            _paint_petals(canvas, bloom, species, ring, (main, second), lengths)
        _paint_centre(canvas, bloom, species.centre_percent / 100, centre)
    photo = canvas.reshape(image_size, _OVERSAMPLING, image_size, _OVERSAMPLING, 3).mean((1, 3))
    photo = (photo - 0.5) * rng.uniform(0.8, 1.15) + 0.5 + rng.uniform(-0.08, 0.08)
    photo += 0.012 * rng.standard_normal(photo.shape, np.float32)
    return np.clip(photo * 255 + 0.5, 0, 255).astype(np.uint8)


def _background(side: int, rng: np.random.Generator) -> np.ndarray:
    """Returns `[side, side, 3]` float32: a gradient between two colours, with soft noise."""
    dark, bright = _BACKGROUNDS[rng.integers(len(_BACKGROUNDS))]
    grid = np.linspace(-0.5, 0.5, side, dtype=np.float32)
    slope_x, slope_y = rng.uniform(-0.5, 0.5, 2).astype(np.float32)
    mix = 0.5 + slope_x * grid + slope_y * grid[:, None]
    for cells, strength in ((4, 0.35), (10, 0.25), (28, 0.12)):
        noise = strength * rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
        mix += np.asarray(Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC))
    brightness = rng.uniform(0.75, 1.2)
    return brightness * (dark + np.clip(mix, 0, 1)[..., None] * (bright - dark))


def _places(arrangement: str, rng: np.random.Generator) -> Iterator[tuple[float, float, float]]:
    """Yields (x, y, radius) of the blooms of an arrangement, the hindmost first."""
    x, y = rng.uniform(0.43, 0.57, 2)
    scale = rng.uniform(0.8, 1.15)
    angle = rng.uniform(-np.pi, np.pi)

    def around(count: int, distance: float, radius: float) -> Iterator[tuple[float, float, float]]:
        for number in range(count):
            direction = angle + 2 * np.pi * number / count + rng.normal(0, 0.1)
            reach = distance * scale * rng.uniform(0.9, 1.1)
            size = radius * scale * rng.uniform(0.9, 1.1)
            yield x + reach * np.cos(direction), y + reach * np.sin(direction), size

    if arrangement == "single":
        yield x, y, 0.38 * scale
    elif arrangement == "pair":
        yield from around(2, 0.21, 0.25)
    elif arrangement == "trio":
        yield from around(3, 0.22, 0.22)
    elif arrangement == "cluster":
        yield from around(6, 0.27, 0.155)
        yield x, y, 0.165 * scale
    else:  # a spike: from side to side along a stem, smaller towards its tip
        lean = rng.normal(0, 0.25)
        for step in range(9):
            along, across = 0.42 - 0.105 * step, 0.1 * (-1) ** step * (1 - step / 10)
            yield (
                x + scale * (across * np.cos(lean) - along * np.sin(lean)),
                y + scale * (across * np.sin(lean) + along * np.cos(lean)),
                scale * (0.155 - 0.009 * step),
            )


def _polar(
    canvas: np.ndarray, bloom: _Bloom, reach: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the view of `canvas` within `reach` radii of a bloom, and its polar coordinates.

    Distances are in radii of the bloom, angles in radians from its first petal.
    """
    side = len(canvas)
    radius = np.float32(bloom.radius)
    top, left = (max(0, int((c - reach * bloom.radius) * side)) for c in (bloom.y, bloom.x))
    bottom, right = (max(0, int((c + reach * bloom.radius) * side) + 1) for c in (bloom.y, bloom.x))
    part = canvas[top:bottom, left:right]
    height, width = part.shape[:2]
    y = (np.arange(top, top + height, dtype=np.float32)[:, None] / side - bloom.y) / radius
    x = (np.arange(left, left + width, dtype=np.float32) / side - bloom.x) / radius
    cos, sin = np.cos(bloom.tilt_axis), np.sin(bloom.tilt_axis)
    along, across = x * cos + y * sin, (y * cos - x * sin) / bloom.tilt
    return part, np.hypot(along, across), np.arctan2(across, along) - np.float32(bloom.turn)


def _coverage(inside: np.ndarray, canvas: np.ndarray, bloom: _Bloom) -> np.ndarray:
    """Turns the depth inside an edge, in radii of the bloom, to opacity `[h, w, 1]` in [0, 1]."""
    return np.clip(inside * np.float32(bloom.radius * len(canvas) / 1.5) + 0.5, 0, 1)[..., None]


def _paint_shadow(canvas: np.ndarray, bloom: _Bloom) -> None:
    part, distance, _ = _polar(canvas, bloom, 1.25)
    part *= 0.55 + 0.45 * _step(0.5, 1.25, distance)[..., None]


def _paint_centre(canvas: np.ndarray, bloom: _Bloom, size: float, colour: np.ndarray) -> None:
    part, distance, angle = _polar(canvas, bloom, 1.2 * size)
    r = distance / np.float32(size)
    dots = np.sin(16 * r * np.cos(angle)) * np.sin(16 * r * np.sin(angle))
    shade = 1.05 - 0.3 * r + 0.15 * dots + 0.12 * r * np.cos(angle + bloom.turn - bloom.light)
    part += _coverage(size - distance, canvas, bloom) * (colour * shade[..., None] - part)


def _paint_petals(
    canvas: np.ndarray,
    bloom: _Bloom,
    species: Species,
    ring: int,
    colours: tuple[np.ndarray, np.ndarray],
    lengths: np.ndarray,
) -> None:
    """Paints one ring: every pixel belongs to the petal whose axis is nearest in angle.

    Args:
        canvas: `[side, side, 3]` float32 in [0, 1], changed in place.
        bloom: where the flower is.
        species: the petals' number, shape and pattern.
        ring: 0 for the outermost.
        colours: the petals' and the pattern's, `[3]` float32 each.
        lengths: `[petals]` float32, of the outermost ring, in radii of the bloom.
    """
    scale = (1.0, 0.7, 0.42)[ring]
    part, distance, angle = _polar(canvas, bloom, 1.05 * scale)
    sector = 2 * np.pi / species.petals
    offset = 0.5 * (ring % 2)
    turns = angle / sector + offset
    nearest = np.round(turns)
    turn = turns - nearest  # from the petal's axis, -0.5 … 0.5 of the way to its neighbours'
    petal = nearest.astype(np.int32) % species.petals
    r = distance / (scale * lengths[petal])
    u, v = r * np.cos(sector * turn), r * np.sin(sector * turn)  # along and across the petal
    half = _half_width(species.shape, species.petals, r, u, v, turn)
    w = np.clip(v / np.maximum(half, 1e-3), -1, 1)
    mix = _pattern(species.pattern, u, w, petal)[..., None]
    shade = 0.7 + 0.06 * ring + 0.3 * np.minimum(r, 1) - 0.22 * (w * w) ** 2
    shade += 0.1 * r * np.cos(angle + bloom.turn - bloom.light)
    colour = (colours[0] + mix * (colours[1] - colours[0])) * shade[..., None]
    part += _coverage(scale * (half - np.abs(v)), canvas, bloom) * (colour - part)


def _half_width(
    shape: str, petals: int, r: np.ndarray, u: np.ndarray, v: np.ndarray, turn: np.ndarray
) -> np.ndarray:
    """Returns half the width of a petal, where a pixel is inside if |v| is less.

    Coordinates are in lengths of the petal: r from the flower's centre, u along the petal's axis,
    v across; `turn` as in `_paint_petals`.
    """
    broad = min(0.75 * np.tan(np.pi / max(petals, 3)), 0.46)
    inside = np.clip(u, 0, 1)
    if shape == "trumpet":  # petals grown together, with a wavy rim
        return np.abs(v) + 0.88 + 0.12 * np.cos(2 * np.pi * turn) - r
    if shape == "pointed":
        return 1.05 * broad * np.sin(3.14 * inside**0.8) - 0.01
    if shape == "star":
        return 0.85 * broad * (1 - u) * (u > 0)
    if shape == "needle":
        return 0.9 * broad * np.sqrt(inside * (1 - inside))
    if shape == "strap":
        return 0.85 * broad * np.sqrt(np.minimum(1, 5 * inside) * np.minimum(1, 6 - 6 * inside))
    if shape == "spoon":
        bowl = np.sqrt(np.clip(1 - ((u - 0.7) / 0.3) ** 2, 0, 1))
        return broad * np.maximum(1.05 * bowl, 0.25 * (u < 0.7)) * (u > 0)
    if shape == "frill":
        u = u * (1 + 0.06 * np.cos(8 * np.pi * turn))
    elif shape == "heart":
        u = u + 0.25 * np.clip(1 - np.abs(v) / (0.55 * broad), 0, 1) * (u > 0.5)
    return 1.15 * broad * np.sqrt(np.clip(1 - (2 * u - 1) ** 2, 0, 1))  # round


def _pattern(pattern: str, u: np.ndarray, w: np.ndarray, petal: np.ndarray) -> np.ndarray:
    """Returns how much of the second colour there is, 0 … 1.

    Args:
        pattern: its name.
        u: along the petal, from 0 at the centre of the flower to 1 at the tip.
        w: across the petal, from -1 at one edge to 1 at the other.
        petal: number of the petal.
    """
    if pattern == "tips":
        return _step(0.55, 0.9, u)
    if pattern == "eye":
        return 1 - _step(0.3, 0.55, u)
    if pattern == "veins":
        stripes = 0.5 + 0.5 * np.cos(3 * np.pi * w)
        return stripes**3 * (1 - 0.6 * np.clip(u, 0, 1))
    if pattern == "spots":
        return _step(0.2, 0.5, np.sin(22 * u) * np.cos(2.5 * np.pi * w)) * (u < 0.85)
    if pattern == "lip":
        return (petal == 0).astype(np.float32)
    return np.zeros_like(u)


def _step(low: float, high: float, x: np.ndarray) -> np.ndarray:
    """Rises smoothly from 0 at `low` to 1 at `high`."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)
