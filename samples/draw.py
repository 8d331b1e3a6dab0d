"""Draw the photos of the three sample products: `python -m samples.draw`.

Renders a T-shirt, a handbag and a watch the way a shop photographs them, cut out on white, as JPEG files of
3:4 beside this module. What the products are called stands in products.json. The same code draws the same
pixels, so a photo can always be made again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageChops

from samples.paintbox import (
    BLACK,
    HEIGHT,
    SCALE,
    WHITE,
    WIDTH,
    Colour,
    Mask,
    Point,
    arc,
    area,
    at_side,
    contact_shadow,
    disc,
    mirrored,
    outside,
    paint,
    paint_round,
    path,
    polar,
    rim,
    shifted,
    soft,
    stitches,
    stroke,
    within,
)

FOLDER = Path(__file__).resolve().parent
JPEG_QUALITY = 84  # keeps each file under 40 kB

BAG_THREAD: Colour = (238, 150, 140)
WATCH_CENTRE: Point = (360, 480)
STEEL: Colour = (176, 180, 187)
ENAMEL: Colour = (230, 231, 234)


def draw_tshirt(picture: Image.Image) -> None:
    """A navy blue crew-neck T-shirt with white stripes, laid flat, from the front."""
    navy: Colour = (30, 39, 79)
    thread: Colour = (88, 98, 140)
    half = path(
        (360, 158),
        [(395, 158), (425, 142), (438, 108)],
        [(470, 122)],
        [(515, 138), (555, 150), (580, 172)],
        [(622, 215), (655, 300), (684, 388)],
        [(655, 410), (620, 424), (577, 434)],
        [(563, 395), (552, 370), (541, 348)],
        [(534, 470), (540, 640), (553, 838)],
        [(490, 856), (425, 862), (360, 862)],
    )
    shirt = area(mirrored(half))
    paint(picture, soft(shifted(shirt, 4, 10), 9), BLACK, 0.20)

    neck_hole = path((360, 104), [(390, 104), (420, 104), (440, 106)], [(430, 150), (400, 176), (360, 176)])
    back = area(mirrored(neck_hole))
    paint(picture, back, (19, 25, 54))
    paint(picture, within(area([(333, 128), (387, 128), (387, 156), (333, 156)]), back), (205, 208, 216))
    paint(picture, within(stroke([(280, 112), (440, 112)], 14), back), (25, 33, 68))

    paint_round(picture, shirt, navy, 26, shade=0.34, light=0.13)
    armhole = path((541, 348), [(556, 290), (570, 230), (552, 154)])
    front = within(area(mirrored([(360, 100), *reversed(armhole), (570, 870), (360, 870)])), shirt)
    for y in range(262, 820, 92):
        stripe = stroke(sorted(mirrored(path((360, y + 8), [(430, y + 8), (500, y + 4), (570, y)]))), 24)
        paint(picture, within(stripe, front), (226, 227, 231), 0.92)
    chest = within(soft(disc((305, 420), 120, 260), 60), shirt)
    paint(picture, chest, WHITE, 0.10)

    folds: list[tuple[list[Point], float, Colour, float]] = [
        (path((190, 372), [(220, 440), (225, 520), (214, 640)]), 15, BLACK, 0.30),
        (path((530, 372), [(500, 440), (492, 540), (508, 650)]), 15, BLACK, 0.32),
        (path((212, 400), [(250, 480), (256, 560), (246, 690)]), 12, WHITE, 0.09),
        (path((500, 420), [(470, 500), (462, 600), (470, 700)]), 12, WHITE, 0.08),
        (path((300, 850), [(296, 780), (306, 710), (330, 640)]), 14, BLACK, 0.22),
        (path((420, 850), [(428, 790), (424, 730), (408, 670)]), 14, BLACK, 0.20),
        (path((150, 215), [(130, 270), (118, 330), (108, 400)]), 12, WHITE, 0.10),
        (path((585, 225), [(602, 280), (616, 340), (622, 400)]), 12, BLACK, 0.26),
        (path((285, 205), [(320, 232), (400, 232), (440, 200)]), 12, BLACK, 0.16),
    ]
    for line, width, colour, opacity in folds:
        paint(picture, within(soft(stroke(line, width), 12), shirt), colour, opacity)

    for side in (1, -1):
        seam = at_side(armhole, side)
        paint(picture, within(soft(stroke(seam, 3), 1.5), shirt), BLACK, 0.55)
        cuff = at_side(path((678, 372), [(650, 394), (616, 407), (572, 416)]), side)
        paint(picture, within(stitches(cuff, 5, 3, 1.6), shirt), thread, 0.7)
    hem = mirrored(path((360, 842), [(425, 842), (490, 836), (556, 820)]))
    paint(picture, within(stitches(sorted(hem), 5, 3, 1.6), shirt), thread, 0.7)

    collar_line = path((282, 108), [(295, 142), (325, 166), (360, 166)], [(395, 166), (425, 142), (438, 108)])
    collar = within(stroke(collar_line, 21), ImageChops.lighter(shirt, back))
    paint(picture, soft(shifted(collar, 0, 5), 4), BLACK, 0.35)
    paint_round(picture, collar, (34, 44, 88), 5, shade=0.35, light=0.22)
    collar_seam = [(x, y + 15) for x, y in collar_line]
    paint(picture, within(stitches(collar_seam, 5, 3, 1.6), shirt), thread, 0.6)


def draw_handbag(picture: Image.Image) -> None:
    """A red leather handbag with two handles and golden fittings."""
    contact_shadow(picture, (362, 848), 262, 16)
    paint_round(picture, stroke(bag_handle(-26), 20), (120, 12, 22), 6, shade=0.35, light=0.12)
    body = draw_bag_body(picture)
    draw_bag_flap(picture, body)
    front = stroke(bag_handle(0), 24)
    paint(picture, within(soft(shifted(front, 3, 8), 6), body), BLACK, 0.40)
    paint_round(picture, front, (190, 24, 36), 7, shade=0.40, light=0.30)
    draw_bag_fittings(picture)


def bag_handle(lift: float) -> list[Point]:
    right = path((494, 430), [(504, 250 - lift), (430, 120 - lift), (360, 120 - lift)])
    return [*at_side(right, -1), *reversed(right)]


def draw_bag_body(picture: Image.Image) -> Mask:
    half = path(
        (360, 388),
        [(440, 388), (500, 386), (548, 384)],
        [(580, 384), (588, 398), (592, 424)],
        [(606, 540), (622, 660), (638, 792)],
        [(642, 828), (630, 846), (600, 848)],
        [(520, 852), (440, 854), (360, 854)],
    )
    body = area(mirrored(half))
    paint_round(picture, body, (184, 22, 34), 34, shade=0.36, light=0.20)
    paint(picture, within(soft(disc((270, 560), 150, 110), 60), body), WHITE, 0.16)
    paint(picture, within(soft(area([(60, 760), (660, 760), (660, 900), (60, 900)]), 40), body), BLACK, 0.28)
    for line in (
        path((150, 700), [(190, 640), (200, 560), (188, 470)]),
        path((572, 700), [(540, 640), (528, 560), (536, 480)]),
    ):
        paint(picture, within(soft(stroke(line, 10), 12), body), BLACK, 0.22)
    base_seam = path((112, 800), [(200, 818), (520, 818), (608, 800)])
    paint(picture, within(stitches(base_seam, 7, 5, 2.2), body), BAG_THREAD, 0.6)
    return body


def draw_bag_flap(picture: Image.Image, body: Mask) -> None:
    half = path((360, 380), [(600, 380)], [(600, 440)], [(604, 560), (520, 606), (360, 606)])
    flap = within(area(mirrored(half)), body)
    paint(picture, within(soft(shifted(flap, 0, 12), 9), body), BLACK, 0.42)
    paint_round(picture, flap, (196, 26, 38), 20, shade=0.26, light=0.22)
    paint(picture, within(soft(disc((300, 450), 150, 40), 30), flap), WHITE, 0.20)
    seam = path((360, 590), [(500, 590), (578, 548), (582, 440)])
    for side in (1, -1):
        paint(picture, within(stitches(at_side(seam, side), 7, 5, 2.2), flap), BAG_THREAD, 0.85)


def draw_bag_fittings(picture: Image.Image) -> None:
    gold: Colour = (206, 164, 84)
    for x in (226, WIDTH - 226):
        tab = area([(x - 22, 424), (x + 22, 424), (x + 18, 496), (x, 512), (x - 18, 496)])
        paint(picture, soft(shifted(tab, 2, 4), 3), BLACK, 0.35)
        paint_round(picture, tab, (176, 20, 32), 6, shade=0.30, light=0.20)
        ring = outside(disc((x, 424), 21), disc((x, 424), 13))
        paint_round(picture, ring, gold, 3, shade=0.40, light=0.55)
        paint_round(picture, disc((x, 478), 6), gold, 2, shade=0.40, light=0.60)

    half = path((360, 566), [(392, 566)], [(396, 566), (398, 570), (398, 576)], [(394, 632)], [(360, 640)])
    lock = area(mirrored(half))
    paint(picture, soft(shifted(lock, 2, 5), 4), BLACK, 0.45)
    paint_round(picture, lock, gold, 7, shade=0.34, light=0.55)
    keyhole: Colour = (96, 66, 22)
    paint(picture, disc((360, 604), 8), keyhole)
    paint(picture, area([(356, 604), (364, 604), (367, 624), (353, 624)]), keyhole)


def draw_watch(picture: Image.Image) -> None:
    """A steel wrist watch with a black dial and a black leather strap."""
    draw_watch_strap(picture)
    draw_watch_case(picture)
    dial = draw_watch_dial(picture)
    for centre in ((300.0, 480.0), (360.0, 548.0), (420.0, 480.0)):
        draw_watch_counter(picture, centre)
    draw_watch_hands(picture)
    glass = within(area([(214, 520), (300, 330), (372, 318), (262, 596)]), dial)
    paint(picture, soft(glass, 6), WHITE, 0.06)


def draw_watch_strap(picture: Image.Image) -> None:
    half = path(
        (360, 34),
        [(400, 34), (424, 40), (426, 60)],
        [(430, 160), (446, 240), (456, 300)],
        [(456, 660)],
        [(446, 720), (430, 800), (426, 900)],
        [(424, 920), (400, 926), (360, 926)],
    )
    strap = area(mirrored(half))
    paint(picture, soft(shifted(strap, 6, 10), 9), BLACK, 0.26)
    paint_round(picture, strap, (38, 36, 37), 20, shade=0.45, light=0.20)
    paint(picture, within(soft(stroke([(330, 30), (318, 930)], 34), 16), strap), WHITE, 0.13)
    upper = path((410, 66), [(414, 160), (430, 240), (440, 310)])
    lower = path((440, 650), [(430, 720), (414, 800), (410, 896)])
    for side in (1, -1):
        for edge in (upper, lower):
            seam = stitches(at_side(edge, side), 9, 6, 2.4)
            paint(picture, within(seam, strap), (150, 146, 142), 0.8)
    for y in (800, 832, 864):
        paint(picture, disc((360, y), 6, 7), (12, 12, 13))


def draw_watch_case(picture: Image.Image) -> None:
    lug = ((70, 150), (122, 128), (116, 198), (112, 206), (99, 206))
    for side in (1, -1):
        for top in (1, -1):
            corner = [(WATCH_CENTRE[0] + side * x, WATCH_CENTRE[1] + top * y) for x, y in lug]
            paint_round(picture, area(corner), STEEL, 6, shade=0.35, light=0.45)
    crown = area([(548, 458), (584, 462), (584, 498), (548, 502)])
    paint_round(picture, crown, STEEL, 6, shade=0.40, light=0.40)
    for y in range(466, 498, 6):
        paint(picture, area([(556, y), (584, y), (584, y + 2), (556, y + 2)]), (96, 99, 105))

    case = disc(WATCH_CENTRE, 196)
    paint(picture, soft(shifted(case, 7, 12), 10), BLACK, 0.34)
    paint_round(picture, case, STEEL, 15, shade=0.42, light=0.60)
    paint_round(picture, disc(WATCH_CENTRE, 178), (205, 208, 213), 9, shade=0.40, light=0.40)
    for start in (20, 200):
        gleam = stroke(arc(WATCH_CENTRE, 184, start, start + 55), 12)
        paint(picture, within(soft(gleam, 7), case), WHITE, 0.75)


def draw_watch_dial(picture: Image.Image) -> Mask:
    dial = disc(WATCH_CENTRE, 160)
    paint(picture, dial, (22, 23, 27))
    paint(picture, within(soft(disc((320, 420), 90), 45), dial), WHITE, 0.14)
    paint(picture, rim(dial, 9), BLACK, 0.60)
    for minute in range(60):
        inner, width = (132, 7.0) if minute % 5 == 0 else (146, 2.2)
        tick = [polar(WATCH_CENTRE, inner, minute * 6), polar(WATCH_CENTRE, 152, minute * 6)]
        paint(picture, stroke(tick, width), ENAMEL)
    twelve = [polar(WATCH_CENTRE, 150, -5), polar(WATCH_CENTRE, 150, 5), polar(WATCH_CENTRE, 122, 0)]
    paint(picture, area(twelve), ENAMEL)
    return dial


def draw_watch_counter(picture: Image.Image, centre: Point) -> None:
    paint(picture, disc(centre, 35), (150, 153, 160))
    paint(picture, disc(centre, 33), (34, 35, 40))
    for hour in range(12):
        mark = stroke([polar(centre, 26, hour * 30), polar(centre, 30, hour * 30)], 1.6)
        paint(picture, mark, (200, 202, 208))
    # Any three different angles will do; the centre gives each counter one of its own.
    paint(picture, stroke([centre, polar(centre, 22, centre[0])], 2.2), ENAMEL)


def draw_watch_hands(picture: Image.Image) -> None:
    # Ten past ten, as on every photo of a watch: the hands frame the dial and cover no counter.
    for degrees, length, width in ((304.0, 82.0, 10.0), (60.0, 122.0, 7.0)):
        hand = stroke([polar(WATCH_CENTRE, -17, degrees), polar(WATCH_CENTRE, length, degrees)], width)
        paint(picture, soft(shifted(hand, 3, 5), 3), BLACK, 0.70)
        paint_round(picture, hand, ENAMEL, 2, shade=0.25, light=0.30)
    paint(picture, stroke([polar(WATCH_CENTRE, -34, 186), polar(WATCH_CENTRE, 138, 186)], 2.4), (206, 60, 52))
    paint_round(picture, disc(WATCH_CENTRE, 9), STEEL, 3, shade=0.30, light=0.50)


DRAWINGS: dict[str, Callable[[Image.Image], None]] = {
    "tshirt.jpg": draw_tshirt,
    "handbag.jpg": draw_handbag,
    "watch.jpg": draw_watch,
}


def render(draw: Callable[[Image.Image], None]) -> Image.Image:
    picture = Image.new("RGB", (WIDTH * SCALE, HEIGHT * SCALE), WHITE)
    draw(picture)
    return picture.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def main() -> None:
    for name, draw in DRAWINGS.items():
        target = FOLDER / name
        render(draw).save(target, "JPEG", quality=JPEG_QUALITY, optimize=True, progressive=True)
        print(f"{target.name}: {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
