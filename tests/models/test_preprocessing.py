"""Text and photos become numbers, or a clear refusal."""

import io

import numpy as np
import pytest
from PIL import Image

from models import Product, UnreadablePhoto
from models.preprocessing import decode, in_words
from tests.tiny_tagger import picture, tiny_checkpoint


@pytest.fixture(scope="module")
def preprocessor():
    return tiny_checkpoint().preprocessor


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_photos_become_square_bytes(preprocessor, file_format):
    example = preprocessor(Product(photos=(picture("blue", (50, 31), file_format),)))
    assert example.photos.shape == (1, 3, 16, 16)
    assert example.photos.dtype == np.uint8
    red, green, blue = example.photos[0].mean(axis=(1, 2))
    assert blue > 240
    assert red < 15
    assert green < 15


@pytest.mark.parametrize("file_format", ["GIF", "BMP", "TIFF", "PPM"])
def test_other_formats_stay_shut(file_format):
    with pytest.raises(UnreadablePhoto):
        decode(picture(file_format=file_format))


@pytest.mark.parametrize(
    "content", [b"", b"not a picture", picture()[:200], picture(file_format="AVIF").replace(b"iloc", b"free")]
)
def test_broken_bytes_are_refused(preprocessor, content):
    with pytest.raises(UnreadablePhoto):
        preprocessor(Product(photos=(content,)))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_a_photo_that_its_camera_turns_is_upright_as_it_is_served(file_format):
    exif, stream, shown = Image.Exif(), io.BytesIO(), Image.new("RGB", (60, 40), "blue")
    shown.paste("red", (0, 0, 20, 40))
    exif[0x0112] = 6
    shown.transpose(Image.Transpose.ROTATE_90).save(stream, file_format, exif=exif.tobytes())
    found = np.asarray(decode(stream.getvalue())).astype(int)
    assert found.shape == (40, 60, 3)
    assert np.abs(found - np.asarray(shown)).mean() < 10


def test_what_a_camera_says_and_nobody_can_read_turns_nothing():
    stream = io.BytesIO()
    Image.new("RGB", (60, 40)).save(stream, "JPEG", exif=b"Exif\0\0garbage")
    assert decode(stream.getvalue()).size == (60, 40)


def test_transparency_becomes_white():
    stream = io.BytesIO()
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(stream, "PNG")
    assert decode(stream.getvalue()).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "LA", "I;16"])
def test_every_colour_mode_becomes_rgb(mode):
    stream = io.BytesIO()
    file_format = "JPEG" if mode == "CMYK" else "PNG"
    Image.new(mode, (8, 8)).save(stream, file_format)
    assert decode(stream.getvalue()).mode == "RGB"


@pytest.mark.parametrize("extra", [{}, {"transparency": 0}])
def test_grey_in_16_bits_keeps_its_shades(extra):
    shades, stream = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64), io.BytesIO()
    Image.fromarray(shades).save(stream, "PNG", **extra)
    found = np.asarray(decode(stream.getvalue())).astype(int)
    assert np.abs(found - shades[:, :, np.newaxis] / 257).max() <= 1


def test_what_is_no_picture_is_said_in_words_for_a_seller():
    with pytest.raises(
        UnreadablePhoto, match=r"^a photo cannot be decoded: it is none of JPEG, PNG, WEBP, AVIF$"
    ):
        decode(b"no picture")


@pytest.mark.parametrize(
    ("size", "file_format", "decoded"),
    [
        ((320, 426), "JPEG", (160, 213)),
        ((223, 800), "JPEG", (223, 800)),
        ((4000, 3000), "JPEG", (500, 375)),
        ((320, 426), "PNG", (320, 426)),
    ],
)
def test_a_jpeg_is_decoded_no_larger_than_it_is_needed(size, file_format, decoded):
    assert decode(picture("blue", size, file_format), 112).size == decoded
    assert decode(picture("blue", size, file_format)).size == size


def test_a_jpeg_decoded_smaller_looks_the_same(preprocessor):
    waves = np.sin(np.linspace(0, 12, 128))[:, None] * np.cos(np.linspace(0, 9, 96)) * 100 + 128  # (128, 96)
    stream = io.BytesIO()
    Image.fromarray(np.stack([waves, waves[::-1], 255 - waves], axis=2).astype(np.uint8)).save(stream, "JPEG")
    (seen,) = preprocessor(Product(photos=(stream.getvalue(),))).photos
    whole = preprocessor.pixels(decode(stream.getvalue()))
    assert whole.std() > 30
    assert np.abs(seen.astype(int) - whole.astype(int)).mean() < 2


def test_title_and_description_are_two_segments(preprocessor):
    example = preprocessor(Product("red shirt", "soft cotton"))
    assert example.type_ids.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert example.tokens == 7


def test_a_description_alone_is_text_too_and_no_title(preprocessor):
    alone = preprocessor(Product(description="soft cotton"))
    assert alone.type_ids.tolist() == [0, 0, 1, 1, 1]
    assert alone.token_ids.tolist()[2:] == preprocessor(Product("red", "soft cotton")).token_ids.tolist()[3:]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("Red❤Shirt", "Red ❤ Shirt"),
        ("★Nike® Shirt🔥", "★ Nike ®  Shirt 🔥"),
        ("Men´s Shirt 20€", "Men ´ s Shirt 20 €"),
        ("红色Ｔ恤（５ＸＬ）", "红色T恤（5XL）"),
        ("𝐑𝐞𝐝 ﬁt", "Red fit"),
        ("Men&#39;s A &amp; B&nbsp;", "Men's A & B"),
        ('<p class="x">Red<br/>Shirt</p>', "Red Shirt"),
        ("&lt;b&gt;Red&lt;/b&gt; Shirt", "Red  Shirt"),
        ("5 < 6 > 4 <3 AT&T;R&D &copy", "5 < 6 > 4 <3 AT&T;R&D &copy"),
        ("ein größeres Hemd, जींस, ジーンズ", "ein größeres Hemd, जींस, ジーンズ"),
    ],
)
def test_words_are_free_of_what_a_vocabulary_does_not_know_them_with(written, read):
    assert in_words(written) == read


def test_a_word_beside_a_symbol_is_the_same_word(preprocessor):
    known = set(preprocessor(Product("red shirt", "blue")).token_ids.tolist())
    found = preprocessor(Product("ｒｅｄ❤shirt", "<b>blue</b>❤")).token_ids.tolist()
    assert known <= set(found)


def test_markup_without_a_word_is_no_text(preprocessor):
    assert preprocessor(Product("<br>", "<p>&nbsp;</p>")).tokens == 0


def test_long_text_is_cut_at_the_limit(preprocessor):
    assert preprocessor(Product("red " * 500, "blue " * 500)).tokens == 16


def test_no_text_has_no_tokens(preprocessor):
    assert preprocessor(Product("  ", "\n")).tokens == 0


def test_photos_over_the_limit_are_left_out(preprocessor):
    assert len(preprocessor(Product(photos=(picture(),) * 5)).photos) == 3
