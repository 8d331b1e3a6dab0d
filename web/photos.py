"""From uploaded bytes to a stored photo and its model view, or a refusal.

Knows the formats, the limits and Pillow; knows nothing of HTTP bodies, the store or the database.
Pixels are read once, in a bounded way: the size comes from the header before anything is decoded,
a JPEG is decoded at the reduced scale its DCT offers, and every other picture is brought to RGB
strip by strip, so that no second full-size copy exists.
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import structlog
from PIL import Image

from catalog.settings import Settings
from catalog.views import PhotoRef
from web import metadata, problems
from web.budget import Budget
from web.problems import ProblemError

log = structlog.get_logger(__name__)

_ORIENTATION_TAG = 0x0112
# What makes a picture upright, by the value of the tag (TIFF 6.0, section "Orientation").
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_MEDIA_TYPES = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}

# The model view is JPEG 90 without chroma subsampling: colour is an attribute that is read from it.
_MODEL_VIEW_QUALITY = 90
# Of small pictures that are no JPEG, neither as they came nor written anew: the model enlarges every trace of one.
_SMALL_VIEW_QUALITY = 98
# A panorama keeps its proportions up to this many short sides; towers crop far more than that away.
_MODEL_VIEW_MAX_ASPECT = 6
# Only pictures that must be turned or that cannot be cleaned in place (AVIF) are written anew.
_REENCODED_QUALITY = 95
_JPEG_MAX_SIDE = 65_500
# Above this many decoded pixels two pictures at once would cost hundreds of megabytes: one at a time.
_LARGE_PIXELS = 12_000_000
_STRIP_PIXELS = 1_000_000
# Pixels that are decoded or wait for it, in largest photos: of all, and of one account. A file of some bytes can have
# as many as are accepted, takes seconds, and holds a thread from the moment it waits for its turn.
_LARGEST_AT_ONCE, _LARGEST_OF_ONE = 12, 6
# Encoders write ten to twenty scans of a progressive JPEG. Each costs a pass over all blocks, however few bytes it has:
# a file of 40 kB with a thousand of them would be decoded for minutes. There is no marker in a scan (T.81, B.1.1.5).
_SCAN = b"\xff\xda"
_MOST_SCANS = 32

# Fully transparent pixels of a cut-out product carry arbitrary colours; shops show them on white.
_BACKGROUND = (255, 255, 255)


@dataclass(frozen=True)
class PreparedPhoto:
    ref: PhotoRef
    original: bytes
    model_view: bytes


class PhotoIntake:
    """Prepares photos under the limits of one installation; safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        self._max_bytes = settings.max_photo_bytes
        self._max_pixels = settings.max_photo_pixels
        self._side = settings.model_view_side
        self._slots = threading.BoundedSemaphore(os.cpu_count() or 1)
        self._large_slot = threading.BoundedSemaphore(1)
        largest = settings.max_photo_pixels
        self._pixels = Budget(_LARGEST_AT_ONCE * largest, _LARGEST_OF_ONE * largest)

    def prepare(self, data: bytes, name: str, tenant_id: str) -> PreparedPhoto:
        """`name` is how messages call the photo ("photo 2"). Raises ProblemError."""
        if len(data) > self._max_bytes:
            raise too_large(name, self._max_bytes)
        kind = sniff(data)
        if kind is None:
            raise ProblemError(
                problems.UNSUPPORTED_PHOTO,
                f"{name} is {'empty' if not data else 'not a JPEG, PNG, WebP or AVIF'}.",
            )
        with self._slots, self._readable(name):  # a container of many parts takes its time as well
            stripped = metadata.strip(data, kind)
            content = stripped.data if stripped else data
            picture = Image.open(io.BytesIO(content), formats=[kind])
        with picture:
            self._check_header(picture, name)
            if kind == "JPEG":
                _check_scans(content, name)
            orientation = _orientation_in(stripped.exif) if stripped else _orientation_of(picture)
            # What waits for the room of large ones must not keep a small one out.
            with self._room_for(picture, tenant_id), self._slots, self._readable(name):
                if stripped is None or orientation != 1:
                    return self._written_anew(picture, orientation)
                return self._as_it_came(picture, stripped.data, kind)

    def _check_header(self, picture: Image.Image, name: str) -> None:
        width, height = picture.size
        if width * height > self._max_pixels:
            raise ProblemError(
                problems.PHOTO_TOO_MANY_PIXELS,
                f"{name} has {width} x {height} pixels; at most {self._max_pixels:,} are accepted.",
            )
        # A JPEG with further frames is a phone's depth or gain map (MPO), not an animation.
        if picture.format not in ("JPEG", "MPO") and getattr(picture, "n_frames", 1) > 1:
            raise ProblemError(problems.PHOTO_ANIMATED, f"{name} is animated; send one still picture.")

    @contextmanager
    def _room_for(self, picture: Image.Image, tenant_id: str) -> Iterator[None]:
        pixels = picture.width * picture.height
        if picture.format == "AVIF":
            # Its decoder shrinks what is larger than the header says, up to 268 million pixels from a file of 2 kB.
            pixels = max(pixels, _LARGE_PIXELS + 1)
        busy = "Too many large photos are being read; try again shortly."
        alone = self._large_slot if pixels > _LARGE_PIXELS else nullcontext()
        with self._pixels.take(pixels, tenant_id, busy), alone:
            yield

    @contextmanager
    def _readable(self, name: str) -> Iterator[None]:
        """Decoders meet hostile bytes here and raise whatever they like: OSError, SyntaxError,
        ValueError, struct.error, IndexError... All of it means that the photo cannot be read."""
        try:
            yield
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise ProblemError(
                problems.PHOTO_TOO_MANY_PIXELS, f"{name} has more than {self._max_pixels:,} pixels."
            ) from error
        except MemoryError:
            raise
        except Exception as error:
            log.info("photo refused", photo=name, reason=repr(error))
            raise ProblemError(problems.PHOTO_UNREADABLE, f"{name} is truncated or damaged.") from error

    def _as_it_came(self, picture: Image.Image, original: bytes, kind: str) -> PreparedPhoto:
        """Upright in the file: the bytes are kept, pixels are read only for the model view."""
        size = picture.size
        picture.draft(None, (self._side, self._side))  # changes a JPEG only: decoded at 1/2, 1/4 or 1/8
        picture.load()
        return self._prepared(picture, original, size, _MEDIA_TYPES[kind])

    def _written_anew(self, picture: Image.Image, orientation: int) -> PreparedPhoto:
        """To be turned, or in a file that cannot be cleaned: read in full."""
        picture.load()
        # A profile describes the numbers of its own colour model: one for CMYK means nothing in RGB.
        profile = picture.info.get("icc_profile") if picture.mode in ("RGB", "RGBA", "L") else None
        upright: Image.Image = picture
        if max(picture.size) > _JPEG_MAX_SIDE:
            upright.thumbnail((_JPEG_MAX_SIDE, _JPEG_MAX_SIDE))
        if orientation != 1:
            upright = upright.transpose(_TURNS[orientation])
        upright = _rgb(upright)
        original = _encode(upright, _REENCODED_QUALITY, profile)
        return self._prepared(upright, original, upright.size, "image/jpeg")

    def _prepared(
        self, picture: Image.Image, original: bytes, size: tuple[int, int], media_type: str
    ) -> PreparedPhoto:
        ref = PhotoRef(
            id=hashlib.sha256(original).hexdigest(),
            width=size[0],
            height=size[1],
            bytes=len(original),
            media_type=media_type,
        )
        return PreparedPhoto(ref, original, self._view_of(picture, original, ref))

    def _view_of(self, picture: Image.Image, original: bytes, ref: PhotoRef) -> bytes:
        """A small JPEG is its own view: a second encoding would change what the model makes of it."""
        view = _model_view(picture, self._side)
        if view.size != (ref.width, ref.height):
            return _encode(view, _MODEL_VIEW_QUALITY, None)
        plain = ref.media_type == "image/jpeg" and picture.mode in ("RGB", "L")
        # A profile can make a file of any size: a worker reads no more than the pixels would take.
        if plain and ref.bytes <= 3 * ref.width * ref.height:
            return original
        return _encode(view, _SMALL_VIEW_QUALITY, None)


def _check_scans(content: bytes, name: str) -> None:
    scans = content.count(_SCAN)
    if scans > _MOST_SCANS:
        raise ProblemError(
            problems.PHOTO_UNREADABLE,
            f"{name} is a JPEG of {scans:,} scans; at most {_MOST_SCANS} are accepted. Save it as an ordinary JPEG.",
        )


def too_large(name: str, max_bytes: int) -> ProblemError:
    return ProblemError(
        problems.PHOTO_TOO_LARGE, f"{name} is larger than {max_bytes:,} bytes ({max_bytes / 1e6:g} MB)."
    )


def sniff(data: bytes) -> str | None:
    """Pillow's name of the format that the first bytes announce; None for everything not accepted."""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        # ISO 14496-12: a file type box holds a major brand, a version and compatible brands.
        brands = data[8 : min(int.from_bytes(data[:4], "big"), 256)]
        if any(
            brand in (brands[i : i + 4] for i in range(0, len(brands), 4)) for brand in (b"avif", b"avis")
        ):
            return "AVIF"
    return None


def _orientation_in(exif: bytes) -> int:
    if not exif:
        return 1
    block = Image.Exif()
    try:
        block.load(exif)
    except Exception as error:  # a stranger's bytes: whatever is wrong with them, the pixels can be read
        log.info("orientation unreadable", reason=repr(error))
        return 1
    return _known(block.get(_ORIENTATION_TAG))


def _orientation_of(picture: Image.Image) -> int:
    try:
        return _known(picture.getexif().get(_ORIENTATION_TAG))
    except Exception as error:  # as above
        log.info("orientation unreadable", reason=repr(error))
        return 1


def _known(orientation: object) -> int:
    return orientation if isinstance(orientation, int) and orientation in _TURNS else 1


def _model_view(picture: Image.Image, side: int) -> Image.Image:
    """`picture` with its short side at most `side`, in RGB or grey, never enlarged."""
    short, long = sorted(picture.size)
    scale = min(1.0, side / short, side * _MODEL_VIEW_MAX_ASPECT / long)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    # Whole-number reduction first, leaving twice the wanted size for the good filter that follows. By either side: of a
    # picture three pixels wide and millions high a full copy would be made.
    factors = (max(1, picture.width // (2 * size[0])), max(1, picture.height // (2 * size[1])))
    small = _reduce(picture, factors) if max(factors) > 1 else _rgb(picture)
    if small.size == size:
        return small
    return small.resize(size, Image.Resampling.BICUBIC)


def _reduce(picture: Image.Image, factors: tuple[int, int]) -> Image.Image:
    """A box filter by a factor for each side, one strip of rows at a time."""
    across, down = factors
    rows = max(1, _STRIP_PIXELS // (picture.width * down)) * down
    size = (-(-picture.width // across), -(-picture.height // down))
    small = Image.new("RGB", size)
    for top in range(0, picture.height, rows):
        strip = picture.crop((0, top, picture.width, min(top + rows, picture.height)))
        small.paste(_rgb(strip).convert("RGB").reduce(factors), (0, top // down))
    return small


def _rgb(picture: Image.Image) -> Image.Image:
    """RGB or L; transparency is laid on white, 16-bit grey is scaled and not clipped."""
    if picture.mode in ("RGB", "L"):
        if "transparency" not in picture.info:
            return picture
        picture = picture.convert("RGBA")
    if picture.mode.startswith("I") or picture.mode == "F":
        return picture.convert("I").point(lambda value: value / 257).convert("L")
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        cut_out = picture if picture.mode == "RGBA" else picture.convert("RGBA")
        flat = Image.new("RGB", cut_out.size, _BACKGROUND)
        flat.paste(cut_out, mask=cut_out)
        return flat
    return picture.convert("RGB")


def _encode(picture: Image.Image, quality: int, icc_profile: bytes | None) -> bytes:
    out = io.BytesIO()
    # Pillow copies the source's comment unless it is given another one.
    picture.save(out, "JPEG", quality=quality, subsampling=0, icc_profile=icc_profile, comment=b"")
    return out.getvalue()
