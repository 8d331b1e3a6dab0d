"""A product's first photo, small enough to live inside the page."""

import base64
import io
from functools import cache
from pathlib import Path

from PIL import Image

from models.errors import UnreadablePhoto
from models.preprocessing import decode
from training.errors import DataError

SIDE = 96  # pixels: twice what the page shows, for dense screens
QUALITY = 60


@cache  # one product is often an example of several mistakes
def thumbnail(path: Path) -> str:
    """A WebP picture as a data URL. Raises DataError for a photo that cannot be read."""
    try:
        picture = decode(path.read_bytes())
    except (OSError, UnreadablePhoto) as error:
        raise DataError(f"{path}: {error}") from error
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, "WEBP", quality=QUALITY)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()
