"""Takes the metadata of a photo file away: EXIF, XMP, comments, thumbnails, further frames, trailing bytes.

Works on the container alone: pixels are copied byte for byte, so nothing is lost and nothing is decoded, and
Pillow never parses what a stranger wrote beside the pixels. What they need to be read right stays: colour
profiles, gamma, palettes, density. Knows the structure of JPEG, PNG and WebP; says None where a file does
not follow it.

Sources: ITU-T T.81 annex B (JPEG), the PNG specification 3rd edition chapters 5 and 11, the WebP container
specification.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

# In entropy-coded data FF is followed by 00 or by a restart marker; anything else is the next marker.
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_FILL = re.compile(rb"\xff+")  # before a marker, which has the last of them
# Of a file: thousands of rows each in a chunk of its own still fit, and what is cut into millions keeps nobody busy.
_MOST_PARTS = 50_000
_SOI, _EOI, _SOS, _COM, _APP1 = 0xD8, 0xD9, 0xDA, 0xFE, 0xE1
_EXIF_HEADER = b"Exif\0\0"

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = frozenset(
    {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP", b"sBIT"}
    | {b"bKGD", b"pHYs"}
)

_WEBP_KEPT = frozenset({b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ICCP"})
_WEBP_EXIF_FLAG, _WEBP_XMP_FLAG = 0x08, 0x04


@dataclass(frozen=True)
class Stripped:
    """The same picture without metadata, and the EXIF block that was taken out (empty when there was none)."""

    data: bytes
    exif: bytes


def strip(data: bytes, kind: str) -> Stripped | None:
    """None for a container that is not laid out as expected, and for AVIF, whose metadata lies among its pixels.

    Raises ValueError for one of more than _MOST_PARTS segments or chunks.
    """
    strippers: dict[str, Callable[[bytes], Stripped | None]] = {
        "JPEG": _strip_jpeg,
        "PNG": _strip_png,
        "WEBP": _strip_webp,
    }
    stripper = strippers.get(kind)
    return None if stripper is None else stripper(data)


def _strip_jpeg(data: bytes) -> Stripped | None:
    kept = [data[:2]]
    exif = b""
    at = 2
    for _ in range(_MOST_PARTS):
        if fill := _FILL.match(data, at):
            at = fill.end() - 1
        if len(data) < at + 2 or data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == _EOI:
            return Stripped(b"".join([*kept, data[at : at + 2]]), exif)
        if marker in (0x00, 0x01, _SOI) or 0xD0 <= marker <= 0xD7:  # these carry no length here
            return None
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if end < at + 4 or end > len(data):
            return None
        head = data[at + 4 : at + 20]
        if _jpeg_segment_is_kept(marker, head):
            kept.append(data[at:end])
        elif marker == _APP1 and head.startswith(_EXIF_HEADER) and not exif:
            exif = data[at + 4 : end]
        if marker == _SOS:
            following = _NEXT_MARKER.search(data, end)
            if following is None:
                return None
            kept.append(data[end : following.start()])
            end = following.start()
        at = end
    raise ValueError("too many segments")


def _jpeg_segment_is_kept(marker: int, head: bytes) -> bool:
    if marker == _COM:
        return False
    if not 0xE0 <= marker <= 0xEF:
        return True
    return (
        (marker == 0xE0 and head.startswith(b"JFIF\0"))
        or (marker == 0xE2 and head.startswith(b"ICC_PROFILE\0"))
        or (marker == 0xEE and head.startswith(b"Adobe"))  # says how the colours are transformed
    )


def _strip_png(data: bytes) -> Stripped | None:
    kept = [_PNG_SIGNATURE]
    exif = b""
    at = len(_PNG_SIGNATURE)
    for _ in range(_MOST_PARTS):
        if at + 12 > len(data):
            return None
        length = int.from_bytes(data[at : at + 4], "big")
        name = data[at + 4 : at + 8]
        end = at + 12 + length
        if end > len(data):
            return None
        if name in _PNG_KEPT:
            kept.append(data[at:end])
        elif name == b"eXIf":
            exif = data[at + 8 : end - 4]
        elif name == b"acTL" or not name[0] & 0x20:
            # Frames of an animation, or a critical chunk (upper-case first letter) that is unknown: what is left
            # would be another picture.
            return None
        if name == b"IEND":
            return Stripped(b"".join(kept), exif)
        at = end
    raise ValueError("too many chunks")


def _strip_webp(data: bytes) -> Stripped | None:
    kept = [b"WEBP"]
    exif = b""
    at, stop = 12, min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    for _ in range(_MOST_PARTS):
        if at + 8 > stop:
            return Stripped(b"RIFF" + sum(map(len, kept)).to_bytes(4, "little") + b"".join(kept), exif)
        name = data[at : at + 4]
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        end = at + 8 + size
        if end > stop or name in (b"ANIM", b"ANMF"):  # cut off, or another picture without its frames
            return None
        if name in _WEBP_KEPT:
            chunk = bytearray(data[at:end])
            if name == b"VP8X" and size >= 1:
                chunk[8] &= ~(_WEBP_EXIF_FLAG | _WEBP_XMP_FLAG) & 0xFF
            kept.append(bytes(chunk) + b"\0" * (size % 2))
        elif name == b"EXIF":
            exif = data[at + 8 : end]
        at = end + size % 2
    raise ValueError("too many chunks")
