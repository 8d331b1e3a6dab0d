"""Photo intake by itself: what is stored of a picture and what the model gets to see."""

import hashlib
import io
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from PIL import Image, ImageCms, ImageOps, JpegImagePlugin

from catalog.settings import Settings
from tests.web.seller import encoded, picture
from web import photos
from web.photos import PhotoIntake, PreparedPhoto, sniff
from web.problems import ProblemError

ACCOUNT = "acc_1"


@pytest.fixture(scope="module")
def intake() -> PhotoIntake:
    return PhotoIntake(Settings())


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def distance(one: Image.Image, other: Image.Image) -> float:
    """Mean difference of the pixels, in levels of 255."""
    assert one.size == other.size
    pairs = zip(one.convert("RGB").tobytes(), other.convert("RGB").tobytes(), strict=True)
    total = sum(abs(a - b) for a, b in pairs)
    return total / (one.width * one.height * 3)


def exif_of(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "Camera Maker"
    exif.get_ifd(0x8825)[1] = "N"  # GPS: where the photo was taken
    return exif.tobytes()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_an_upright_photo_is_stored_as_it_came(intake: PhotoIntake, kind: str) -> None:
    data = encoded(picture(400, 500), kind)
    prepared = intake.prepare(data, "photo 1", ACCOUNT)
    assert prepared.original == data
    assert prepared.ref.id == hashlib.sha256(data).hexdigest()
    assert (prepared.ref.width, prepared.ref.height, prepared.ref.bytes) == (400, 500, len(data))
    assert prepared.ref.media_type == f"image/{kind.lower()}"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_metadata_goes_and_no_pixel_changes(intake: PhotoIntake, kind: str) -> None:
    data = encoded(picture(400, 500), kind, exif=exif_of(1), **extras(kind)) + b"trailing secret"
    prepared = intake.prepare(data, "photo 1", ACCOUNT)
    for secret in (b"Camera Maker", b"secret", b"Exif", b"eXIf"):
        assert secret in data or secret in (b"Exif", b"eXIf")
        assert secret not in prepared.original
    assert opened(prepared.original).tobytes() == opened(data).tobytes()
    assert not opened(prepared.original).getexif()


def extras(kind: str) -> dict[str, Any]:
    if kind == "JPEG":
        return {"comment": b"secret comment", "xmp": b"<x:xmpmeta>secret</x:xmpmeta>"}
    if kind == "WEBP":
        return {"xmp": b"<x:xmpmeta>secret</x:xmpmeta>", "lossless": True}
    from PIL import PngImagePlugin

    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "secret")
    text.add_itxt("XML:com.adobe.xmp", "secret", zip=True)
    return {"pnginfo": text}


def test_a_colour_profile_stays(intake: PhotoIntake) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for kind in ("JPEG", "PNG", "WEBP"):
        data = encoded(picture(), kind, icc_profile=profile)
        assert opened(intake.prepare(data, "photo 1", ACCOUNT).original).info["icc_profile"] == profile


@pytest.mark.parametrize(("mode", "stays"), [("RGB", True), ("L", True), ("RGBA", True), ("CMYK", False)])
def test_a_profile_stays_with_a_turned_photo_whose_numbers_it_describes(
    intake: PhotoIntake, mode: str, stays: bool
) -> None:
    kind = "JPEG" if mode == "CMYK" else "PNG"
    data = encoded(picture(mode=mode), kind, exif=exif_of(6), icc_profile=b"a profile")
    assert (b"a profile" in intake.prepare(data, "photo 1", ACCOUNT).original) == stays


def test_a_turned_photo_longer_than_a_jpeg_can_be_is_made_smaller(intake: PhotoIntake) -> None:
    data = encoded(Image.new("RGB", (65_501, 3)), "PNG", exif=exif_of(6))
    assert intake.prepare(data, "photo 1", ACCOUNT).ref.height == 65_500


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_a_turned_photo_is_stored_upright(intake: PhotoIntake, kind: str, orientation: int) -> None:
    drawn = picture(360, 480)
    data = encoded(drawn, kind, exif=exif_of(orientation), quality=95)
    prepared = intake.prepare(data, "photo 1", ACCOUNT)
    expected = ImageOps.exif_transpose(opened(data))
    stored, view = opened(prepared.original), opened(prepared.model_view)
    assert stored.size == (prepared.ref.width, prepared.ref.height) == expected.size
    assert stored.format == "JPEG"
    assert b"Camera Maker" not in prepared.original
    assert distance(stored, expected) < 3
    assert distance(view, expected.resize(view.size)) < 6


def test_of_two_orientations_the_first_counts(intake: PhotoIntake) -> None:
    """As it does for those who show the photo."""
    clean = encoded(picture(300, 400))
    blocks = [b"\xff\xe1" + struct.pack(">H", len(exif_of(n)) + 2) + exif_of(n) for n in (6, 1)]
    prepared = intake.prepare(clean[:2] + b"".join(blocks) + clean[2:], "photo 1", ACCOUNT)
    assert (prepared.ref.width, prepared.ref.height) == (400, 300)


def test_a_webp_announces_no_metadata_that_it_has_no_more(intake: PhotoIntake) -> None:
    data = encoded(picture(), "WEBP", exif=exif_of(1), **extras("WEBP"))
    flags = [data[20] & 0x0C, intake.prepare(data, "photo 1", ACCOUNT).original[20] & 0x0C]
    assert flags == [0x0C, 0]


def webp_with(chunks: bytes, announced: bytes = b"") -> bytes:
    """A WebP of an upright picture with chunks before its pixels, and something announced behind them."""
    pixels = encoded(picture(), "WEBP")[12:]
    content = b"WEBP" + chunks + pixels + announced
    return b"RIFF" + struct.pack("<I", len(content)) + content


@pytest.mark.parametrize("content", [b"", b"secret", b"secrets"])
def test_a_chunk_of_a_webp_that_the_pixels_do_not_need_is_dropped(
    intake: PhotoIntake, content: bytes
) -> None:
    padding = b"\0" * (len(content) % 2)
    chunk = b"odd " + struct.pack("<I", len(content)) + content + padding
    assert intake.prepare(webp_with(chunk), "photo 1", ACCOUNT).original == webp_with(b"")


@pytest.mark.parametrize("name", [b"XMP ", b"ICCP"])
def test_a_webp_that_is_cut_off_is_refused_whichever_chunk_lacks_its_end(
    intake: PhotoIntake, name: bytes
) -> None:
    with pytest.raises(ProblemError, match="truncated"):
        intake.prepare(webp_with(b"", name + struct.pack("<I", 1000) + b"secret"), "photo 1", ACCOUNT)


def test_the_last_byte_of_a_webp_that_only_fills_it_up_may_be_missing(intake: PhotoIntake) -> None:
    pictures = (encoded(picture(width), "WEBP", lossless=True) for width in range(60, 160))
    data = next(data for data in pictures if data[16] % 2)  # the size of its pixels, from its lowest byte
    short = data[:4] + struct.pack("<I", len(data) - 9) + data[8:-1]
    assert intake.prepare(data, "photo 1", ACCOUNT).original == data
    assert intake.prepare(short, "photo 1", ACCOUNT).original == data


def test_an_avif_becomes_a_jpeg(intake: PhotoIntake) -> None:
    prepared = intake.prepare(encoded(picture(400, 500), "AVIF"), "photo 1", ACCOUNT)
    assert prepared.ref.media_type == "image/jpeg"
    assert distance(opened(prepared.original), picture(400, 500)) < 4


SIZES = [
    ((1200, 900), (427, 320)), ((900, 1200), (320, 427)), ((3000, 3000), (320, 320)), ((100, 50), (100, 50)),
    ((1, 1), (1, 1)), ((320, 320), (320, 320)), ((321, 4000), (154, 1920)), ((20_000, 2), (1920, 1)),
]  # fmt: skip


@pytest.mark.parametrize(("size", "expected"), SIZES)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_the_short_side_of_the_model_view_is_bounded(
    intake: PhotoIntake, kind: str, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    prepared = intake.prepare(encoded(Image.new("RGB", size, "navy"), kind), "photo 1", ACCOUNT)
    assert (prepared.ref.width, prepared.ref.height) == size
    view = opened(prepared.model_view)
    assert view.format == "JPEG"
    assert view.size == expected


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_the_model_view_looks_like_the_photo(intake: PhotoIntake, kind: str) -> None:
    drawn = picture(1700, 1300)
    view = opened(intake.prepare(encoded(drawn, kind), "photo 1", ACCOUNT).model_view)
    assert distance(view, drawn.resize(view.size, Image.Resampling.LANCZOS)) < 3


def test_the_model_view_keeps_the_colour_of_each_pixel(intake: PhotoIntake) -> None:
    view = opened(intake.prepare(encoded(picture(700, 900)), "photo 1", ACCOUNT).model_view)
    assert JpegImagePlugin.get_sampling(view) == 0


def test_of_a_large_jpeg_only_a_reduced_scale_is_decoded(
    intake: PhotoIntake, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[tuple[int, int]] = []
    model_view = photos._model_view
    monkeypatch.setattr(photos, "_model_view", lambda p, side: decoded.append(p.size) or model_view(p, side))
    intake.prepare(encoded(picture(3000, 4000)), "photo 1", ACCOUNT)
    assert decoded == [(375, 500)]


@pytest.mark.parametrize("kept", [{}, {"progressive": True}, {"exif": exif_of(6)}])
def test_a_small_jpeg_is_its_own_model_view(intake: PhotoIntake, kept: dict[str, Any]) -> None:
    """What the model was calibrated on is what it gets to see: a second encoding moves confidences."""
    prepared = intake.prepare(encoded(picture(240, 320), **kept), "photo 1", ACCOUNT)
    assert prepared.model_view == prepared.original


@pytest.mark.parametrize("mode", ["CMYK", "RGB"])
def test_a_small_jpeg_that_is_no_plain_one_gets_a_view(intake: PhotoIntake, mode: str) -> None:
    profile = b"" if mode == "CMYK" else bytes(3 * 240 * 320)
    prepared = intake.prepare(
        encoded(picture(240, 320).convert(mode), icc_profile=profile), "photo 1", ACCOUNT
    )
    view = opened(prepared.model_view)
    assert (view.mode, view.size) == ("RGB", (240, 320))
    assert len(prepared.model_view) < 3 * 240 * 320


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_every_colour_mode_keeps_its_colours(intake: PhotoIntake, mode: str) -> None:
    drawn = picture(700, 900, mode)
    kind = "JPEG" if mode in ("CMYK", "YCbCr") else "PNG"
    view = opened(intake.prepare(encoded(drawn, kind), "photo 1", ACCOUNT).model_view)
    assert view.mode in ("RGB", "L")
    assert distance(view, drawn.convert("RGB").resize(view.size)) < (25 if mode == "1" else 4)


def test_sixteen_bits_of_grey_are_scaled_and_not_cut_off(intake: PhotoIntake) -> None:
    view = opened(
        intake.prepare(encoded(Image.new("I;16", (700, 500), 32_768), "PNG"), "photo 1", ACCOUNT).model_view
    )
    assert view.convert("L").getpixel((10, 10)) == pytest.approx(127, abs=2)


@pytest.mark.parametrize("size", [(50, 50), (2000, 1500)])
def test_what_is_transparent_is_white(intake: PhotoIntake, size: tuple[int, int]) -> None:
    clear = Image.new("RGBA", size, (255, 0, 0, 0))
    palette = Image.new("P", size, 0)
    palette.putpalette([255, 0, 0] * 256)
    for data in (encoded(clear, "PNG"), encoded(clear, "WEBP"), encoded(palette, "PNG", transparency=0)):
        view = opened(intake.prepare(data, "photo 1", ACCOUNT).model_view).convert("RGB")
        assert min(view.getpixel((5, 5))) > 250  # type: ignore[arg-type, type-var]


def test_a_phones_second_frame_is_no_animation_and_is_dropped(intake: PhotoIntake) -> None:
    data = encoded(picture(300, 400), "MPO", save_all=True, append_images=[picture(30, 40)])
    assert getattr(opened(data), "n_frames", 1) == 2
    prepared = intake.prepare(data, "photo 1", ACCOUNT)
    assert (prepared.ref.width, prepared.ref.height) == (300, 400)
    assert opened(prepared.original).format == "JPEG"
    assert len(prepared.original) < len(data)


def test_a_jpeg_with_odd_segments_is_still_cleaned(intake: PhotoIntake) -> None:
    clean = encoded(picture(300, 400))
    filled = clean[:2] + b"\xff\xff\xff\xe5" + struct.pack(">H", 8) + b"secret" + clean[2:]
    assert intake.prepare(filled, "photo 1", ACCOUNT).original == clean


def test_a_jpeg_that_is_written_anew_loses_its_comment_as_well(intake: PhotoIntake) -> None:
    data = encoded(picture(300, 400), comment=b"secret")
    tables = data.index(b"\xff\xdb")
    prepared = intake.prepare(data[:tables] + b"\0" + data[tables:], "photo 1", ACCOUNT)
    assert b"secret" not in prepared.original + prepared.model_view


@pytest.mark.parametrize("marker", [*range(0xE0, 0xF0), 0xFE])
def test_a_segment_of_a_jpeg_that_the_pixels_do_not_need_is_dropped(intake: PhotoIntake, marker: int) -> None:
    clean = encoded(picture(300, 400))
    segment = bytes([0xFF, marker]) + struct.pack(">H", 8) + b"secret"
    assert intake.prepare(clean[:2] + segment + clean[2:], "photo 1", ACCOUNT).original == clean


def test_what_says_how_the_colours_of_a_jpeg_are_to_be_read_stays(intake: PhotoIntake) -> None:
    data = encoded(picture(300, 400, "CMYK"))
    assert b"Adobe" in data
    assert intake.prepare(data, "photo 1", ACCOUNT).original == data


def test_a_jpeg_with_restart_markers_is_stored_as_it_came(intake: PhotoIntake) -> None:
    data = encoded(picture(300, 400), restart_marker_rows=1)
    assert b"\xff\xd0" in data
    assert intake.prepare(data, "photo 1", ACCOUNT).original == data


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


@pytest.mark.parametrize("name", [b"tEXt", b"zTXt", b"iTXt", b"tIME", b"eXIf", b"sPLT", b"prVt"])
def test_a_chunk_of_a_png_that_the_pixels_do_not_need_is_dropped(intake: PhotoIntake, name: bytes) -> None:
    clean = encoded(picture(), "PNG")
    data = clean[:33] + png_chunk(name, b"secret") + clean[33:]
    assert intake.prepare(data, "photo 1", ACCOUNT).original == clean


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (b"gAMA", struct.pack(">I", 45455)), (b"cHRM", struct.pack(">8I", *[31270] * 8)), (b"sRGB", b"\0"),
        (b"cICP", b"\x09\x10\0\1"), (b"sBIT", b"\5\6\5"), (b"bKGD", bytes(6)), (b"pHYs", bytes(9)),
    ],
)  # fmt: skip
def test_what_says_how_the_colours_of_a_png_are_to_be_read_stays(
    intake: PhotoIntake, name: bytes, content: bytes
) -> None:
    clean = encoded(picture(), "PNG")
    data = clean[:33] + png_chunk(name, content) + clean[33:]
    assert intake.prepare(data, "photo 1", ACCOUNT).original == data


def test_a_png_that_cannot_be_read_without_a_chunk_of_its_own_is_written_anew(intake: PhotoIntake) -> None:
    clean = encoded(picture(), "PNG")
    prepared = intake.prepare(clean[:33] + png_chunk(b"OWNc", b"secret") + clean[33:], "photo 1", ACCOUNT)
    assert (prepared.ref.media_type, b"secret" in prepared.original) == ("image/jpeg", False)


def test_a_bomb_beside_the_pixels_is_dropped_unread(intake: PhotoIntake) -> None:
    clean = encoded(picture(), "PNG")
    content = b"zTXtComment\0\0" + zlib.compress(b"a" * 20_000_000, 9)
    bomb = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
    assert intake.prepare(clean[:33] + bomb + clean[33:], "photo 1", ACCOUNT).original == clean


def test_a_progressive_jpeg_is_kept_whole(intake: PhotoIntake) -> None:
    data = encoded(picture(700, 900), progressive=True)
    prepared: PreparedPhoto = intake.prepare(data, "photo 1", ACCOUNT)
    assert prepared.original == data


def many_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan comes so many times again."""
    data = encoded(picture(64, 64), "JPEG", progressive=True)
    last, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    return data[:end] + data[last:end] * count + data[end:]


def test_as_many_scans_as_there_may_be_are_read(intake: PhotoIntake) -> None:
    most = photos._MOST_SCANS - many_scans(0).count(photos._SCAN)
    assert intake.prepare(many_scans(most), "photo 1", ACCOUNT).ref.width == 64
    with pytest.raises(ProblemError, match=f"JPEG of {photos._MOST_SCANS + 1} scans"):
        intake.prepare(many_scans(most + 1), "photo 1", ACCOUNT)


@pytest.mark.parametrize("cut_off", [0, 2])
def test_a_jpeg_of_endless_scans_is_refused_before_it_is_decoded(
    intake: PhotoIntake, monkeypatch: pytest.MonkeyPatch, cut_off: int
) -> None:
    data = many_scans(100)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("it was decoded"))
    with pytest.raises(ProblemError, match="scans"):
        intake.prepare(data[: len(data) - cut_off], "photo 1", ACCOUNT)


@pytest.mark.parametrize(
    ("kind", "part"), [("JPEG", b"\xff\xfe\0\2"), ("PNG", b"\0\0\0\0tEXt\0\0\0\0"), ("WEBP", b"XMP \0\0\0\0")]
)
def test_a_file_of_endless_parts_is_refused(intake: PhotoIntake, kind: str, part: bytes) -> None:
    data = encoded(picture(64, 64), kind)
    at = {"JPEG": 2, "PNG": 33, "WEBP": 12}[kind]
    data = data[:at] + part * 60_000 + data[at:]
    if kind == "WEBP":
        data = data[:4] + struct.pack("<I", len(data) - 8) + data[8:]
    with pytest.raises(ProblemError, match="damaged"):
        intake.prepare(data, "photo 1", ACCOUNT)


def test_fill_bytes_are_passed_at_once(intake: PhotoIntake) -> None:
    data = encoded(picture(64, 64), "JPEG")
    prepared = intake.prepare(data[:2] + b"\xff" * 5_000_000 + data[2:], "photo 1", ACCOUNT)
    assert prepared.original == data


def test_whatever_is_read_of_a_photo_is_read_in_one_of_a_few_places(monkeypatch: pytest.MonkeyPatch) -> None:
    intake, data = PhotoIntake(Settings()), encoded(picture())
    intake._slots = threading.BoundedSemaphore(2)
    free: list[tuple[str, int]] = []
    strip, model_view = photos.metadata.strip, photos._model_view

    def stripped(data: bytes, kind: str) -> Any:
        free.append(("container", intake._slots._value))
        return strip(data, kind)

    def viewed(picture: Image.Image, side: int) -> Image.Image:
        free.append(("pixels", intake._slots._value))
        return model_view(picture, side)

    monkeypatch.setattr(photos.metadata, "strip", stripped)
    monkeypatch.setattr(photos, "_model_view", viewed)
    intake.prepare(data, "photo 1", ACCOUNT)
    assert free == [("container", 1), ("pixels", 1)]


def test_that_there_is_no_memory_is_no_fault_of_the_photo(
    intake: PhotoIntake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(picture: Image.Image, side: int) -> Image.Image:
        raise MemoryError

    monkeypatch.setattr(photos, "_model_view", no_memory)
    with pytest.raises(MemoryError):
        intake.prepare(encoded(picture()), "photo 1", ACCOUNT)


def test_a_small_photo_does_not_wait_for_large_ones() -> None:
    intake = PhotoIntake(Settings())
    intake._slots = threading.BoundedSemaphore(1)
    large = encoded(Image.new("L", (4000, 3001)), "PNG")
    small = encoded(picture(64, 64), "JPEG")
    with ThreadPoolExecutor() as pool, intake._large_slot:
        waits = pool.submit(intake.prepare, large, "photo 1", ACCOUNT)
        passes = pool.submit(intake.prepare, small, "photo 2", ACCOUNT)
        assert passes.result(timeout=30).ref.width == 64
        assert not waits.done()
        intake._large_slot.release()
        assert waits.result(timeout=30).ref.width == 4000
        intake._large_slot.acquire()


def test_an_avif_may_be_larger_than_it_says_and_waits_for_large_ones() -> None:
    intake = PhotoIntake(Settings())
    data = encoded(picture(640, 480), "AVIF")
    at = data.index(b"ispe") + 8
    data = data[:at] + struct.pack(">II", 64, 48) + data[at + 8 :]
    with ThreadPoolExecutor() as pool, intake._large_slot:
        waits = pool.submit(intake.prepare, data, "photo 1", ACCOUNT)
        while not (intake._pixels._held[ACCOUNT] or waits.done()):
            time.sleep(0.01)
        assert intake._pixels._held[ACCOUNT] > photos._LARGE_PIXELS
        intake._large_slot.release()
        assert waits.result(timeout=30).ref.width == 64
        intake._large_slot.acquire()


def test_one_account_cannot_take_all_threads_with_photos_that_wait_for_their_turn() -> None:
    intake = PhotoIntake(Settings(max_photo_pixels=4000 * 3001))
    large = encoded(Image.new("L", (4000, 3001)), "PNG")
    with ThreadPoolExecutor(8) as pool, intake._large_slot:
        waiting = [
            pool.submit(intake.prepare, large, "photo 1", ACCOUNT) for _ in range(photos._LARGEST_OF_ONE)
        ]
        while intake._pixels._held[ACCOUNT] < photos._LARGEST_OF_ONE * 4000 * 3001:
            time.sleep(0.01)
        with pytest.raises(ProblemError, match="try again shortly") as caught:
            intake.prepare(large, "photo 1", ACCOUNT)
        another = pool.submit(intake.prepare, large, "photo 1", "acc_2")
        while not intake._pixels._held["acc_2"]:
            time.sleep(0.01)
        intake._large_slot.release()
        assert [one.result(timeout=60).ref.width for one in (*waiting, another)] == [4000] * 7
        intake._large_slot.acquire()
    assert (caught.value.kind.slug, caught.value.headers) == ("busy", {"Retry-After": "5"})
    assert not intake._pixels._held


def test_a_picture_that_is_all_length_is_reduced_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of it in another colour mode would be as large as itself."""
    copied: list[int] = []
    rgb = photos._rgb
    monkeypatch.setattr(photos, "_rgb", lambda part: copied.append(part.height) or rgb(part))
    view = photos._model_view(Image.new("RGBA", (3, 2_000_000), (255, 0, 0, 255)), 320)
    assert view.size == (1, 1920)
    assert view.getpixel((0, 100)) == (255, 0, 0)
    assert max(copied) < 2_000_000


def test_a_broken_orientation_leaves_the_photo_upright(intake: PhotoIntake) -> None:
    for exif in (b"Exif\0\0garbage", exif_of(77), b"Exif\0\0II*\0\xff\xff\xff\xff"):
        data = encoded(picture(300, 400), exif=exif)
        assert intake.prepare(data, "photo 1", ACCOUNT).ref.width == 300


def test_a_photo_as_large_as_it_may_be_is_taken() -> None:
    data = encoded(picture(30, 40), "PNG")
    largest = PhotoIntake(Settings(max_photo_bytes=len(data), max_photo_pixels=30 * 40))
    assert largest.prepare(data, "photo 1", ACCOUNT).ref.bytes == len(data)
    for limits in ({"max_photo_bytes": len(data) - 1}, {"max_photo_pixels": 30 * 40 - 1}):
        with pytest.raises(ProblemError):
            PhotoIntake(Settings(**limits)).prepare(data, "photo 1", ACCOUNT)  # type: ignore[arg-type]


def test_content_and_not_the_name_tells_the_format() -> None:
    drawn = picture()
    kinds = {kind: encoded(drawn, kind) for kind in ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF")}
    assert {kind: sniff(data) for kind, data in kinds.items()} == {
        "JPEG": "JPEG", "PNG": "PNG", "WEBP": "WEBP", "AVIF": "AVIF", "GIF": None, "BMP": None, "TIFF": None,
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "AVIF"])
def test_two_pictures_are_an_animation_already(intake: PhotoIntake, kind: str) -> None:
    data = encoded(picture(64, 64), kind, save_all=True, append_images=[picture(64, 64).rotate(90)])
    with pytest.raises(ProblemError, match="animated"):
        intake.prepare(data, "photo 1", ACCOUNT)
