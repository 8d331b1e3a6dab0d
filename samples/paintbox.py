"""Shapes and paint for pictures of products: outlines of curves, soft masks, and light from the upper left.

Coordinates are those of the finished picture (720 wide, 960 high, y downwards); everything is drawn SCALE
times larger. Knows no product.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

from PIL import Image, ImageChops, ImageDraw, ImageFilter

WIDTH, HEIGHT = 720, 960
SCALE = 3  # drawn this much larger and reduced, which is what smooths the edges

Point = tuple[float, float]
Colour = tuple[int, int, int]
Mask = Image.Image  # mode "L", the size of the large canvas; 255 is inside

WHITE: Colour = (255, 255, 255)
BLACK: Colour = (0, 0, 0)


# Geometry, in the coordinates of the finished picture.


def bezier(start: Point, control_1: Point, control_2: Point, end: Point, steps: int = 40) -> list[Point]:
    """Points of a cubic Bézier curve, without its start."""
    points = []
    for step in range(1, steps + 1):
        t = step / steps
        weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
        corners = (start, control_1, control_2, end)
        points.append(
            (
                sum(weight * x for weight, (x, _) in zip(weights, corners, strict=True)),
                sum(weight * y for weight, (_, y) in zip(weights, corners, strict=True)),
            )
        )
    return points


def path(start: Point, *segments: Sequence[Point]) -> list[Point]:
    """A line through `segments`: one point is a straight piece, three are the rest of a Bézier curve."""
    points = [start]
    for segment in segments:
        if len(segment) == 1:
            points.append(segment[0])
        else:
            control_1, control_2, end = segment
            points.extend(bezier(points[-1], control_1, control_2, end))
    return points


def mirrored(half: Sequence[Point]) -> list[Point]:
    """The closed outline of a thing that is the same left and right, from its right half drawn downwards."""
    return [*half, *((WIDTH - x, y) for x, y in reversed(half))]


def at_side(points: Iterable[Point], side: int) -> list[Point]:
    """The points as they are (side 1) or mirrored to the left half (side -1)."""
    return [(WIDTH / 2 + side * (x - WIDTH / 2), y) for x, y in points]


def arc(centre: Point, radius: float, start: float, end: float, steps: int = 60) -> list[Point]:
    """Points on a circle from one angle to another, in degrees."""
    return [polar(centre, radius, start + (end - start) * step / steps) for step in range(steps + 1)]


def polar(centre: Point, radius: float, degrees: float) -> Point:
    """A point on a circle; 0 degrees is at twelve o'clock and they grow clockwise."""
    radians = math.radians(degrees)
    return centre[0] + radius * math.sin(radians), centre[1] - radius * math.cos(radians)


# Masks: where paint goes.


def empty_mask() -> Mask:
    return Image.new("L", (WIDTH * SCALE, HEIGHT * SCALE), 0)


def enlarged(points: Iterable[Point]) -> list[Point]:
    return [(x * SCALE, y * SCALE) for x, y in points]


def area(points: Sequence[Point]) -> Mask:
    mask = empty_mask()
    ImageDraw.Draw(mask).polygon(enlarged(points), fill=255)
    return mask


def disc(centre: Point, radius: float, radius_y: float | None = None) -> Mask:
    mask = empty_mask()
    x, y = centre
    height = radius if radius_y is None else radius_y
    ImageDraw.Draw(mask).ellipse(enlarged([(x - radius, y - height), (x + radius, y + height)]), fill=255)
    return mask


def stroke(points: Sequence[Point], width: float) -> Mask:
    mask = empty_mask()
    draw = ImageDraw.Draw(mask)
    large = enlarged(points)
    draw.line(large, fill=255, width=round(width * SCALE), joint="curve")
    radius = width * SCALE / 2
    for x, y in (large[0], large[-1]):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return mask


def stitches(points: Sequence[Point], length: float, gap: float, width: float) -> Mask:
    """A dashed seam along a line, walked in steps of one pixel."""
    mask = empty_mask()
    draw = ImageDraw.Draw(mask)
    travelled = 0
    for (x_1, y_1), (x_2, y_2) in pairwise(points):
        steps = max(1, round(math.dist((x_1, y_1), (x_2, y_2))))
        for step in range(steps):
            if travelled % (length + gap) < length:
                shares = (step / steps, (step + 1) / steps)
                ends = [(x_1 + (x_2 - x_1) * share, y_1 + (y_2 - y_1) * share) for share in shares]
                draw.line(enlarged(ends), fill=255, width=round(width * SCALE))
            travelled += 1
    return mask


def soft(mask: Mask, radius: float) -> Mask:
    # A box blur three times over is a Gaussian to the eye, at a fraction of the time on a canvas this large.
    for _ in range(3):
        mask = mask.filter(ImageFilter.BoxBlur(radius * SCALE / 1.7))
    return mask


def within(mask: Mask, clip: Mask) -> Mask:
    return ImageChops.multiply(mask, clip)


def outside(mask: Mask, clip: Mask) -> Mask:
    return ImageChops.multiply(mask, ImageChops.invert(clip))


def rim(mask: Mask, depth: float) -> Mask:
    """The inside of an edge, strongest at the edge: what makes a flat shape look round."""
    return within(soft(ImageChops.invert(mask), depth), mask)


def shifted(mask: Mask, x: float, y: float) -> Mask:
    return ImageChops.offset(mask, round(x * SCALE), round(y * SCALE))


# Paint.


def paint(picture: Image.Image, mask: Mask, colour: Colour, opacity: float = 1.0) -> None:
    """One flat colour wherever the mask is, as strongly as the mask is there."""
    if opacity < 1:
        mask = mask.point([round(value * opacity) for value in range(256)])
    picture.paste(colour, (0, 0), mask)


def paint_round(
    picture: Image.Image, mask: Mask, colour: Colour, depth: float, *, shade: float, light: float
) -> None:
    """A body of one colour, lit from the upper left; its edge bends away over `depth`."""
    paint(picture, mask, colour)
    paint(picture, rim(mask, depth), BLACK, shade)
    blurred = soft(mask, depth)
    for direction, side, opacity in ((1, WHITE, light), (-1, BLACK, shade)):
        moved = soft(shifted(mask, direction * depth, direction * depth), depth)
        paint(picture, within(outside(blurred, moved), mask), side, opacity)


def contact_shadow(picture: Image.Image, centre: Point, radius: float, radius_y: float) -> None:
    """What a thing that stands casts on the ground."""
    paint(picture, soft(disc(centre, radius, radius_y), 12), BLACK, 0.22)
    paint(picture, soft(disc(centre, radius * 0.9, radius_y * 0.5), 4), BLACK, 0.25)
