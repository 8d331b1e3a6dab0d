"""Whether the photos of rows can be read, asked before hours of work rest on it."""

import os
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from models.errors import UnreadablePhoto
from models.preprocessing import decode
from training.errors import DataError
from training.table import Row

NAMED = 20  # of the photos at fault
SHOWN_AFTER_S = 1.0


def require_readable(rows: Sequence[Row]) -> dict[Path, bytes]:
    """Decodes each photo, as small as its format allows, and returns a digest of each one's file.

    Raises DataError naming those that cannot be read.
    """
    photos = list(dict.fromkeys(photo for row in rows for photo in row.photos))
    with warnings.catch_warnings(), ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        # `decode` sets and resets this filter, which all threads share: one that is done must not take it from others.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        looked_at = tqdm(
            pool.map(look, photos),
            desc="looking at photos",
            total=len(photos),
            delay=SHOWN_AFTER_S,
            file=sys.stderr,
        )
        found = dict(zip(photos, looked_at, strict=True))
    faults = [fault for _, fault in found.values() if fault]
    if faults:
        named = "".join(f"\n  {fault}" for fault in faults[:NAMED])
        more = f"\n  and {len(faults) - NAMED} more" if len(faults) > NAMED else ""
        raise DataError(
            f"{len(faults)} photos cannot be read: mend them, or take them out of the table{named}{more}"
        )
    return {photo: digest for photo, (digest, _) in found.items()}


def look(photo: Path) -> tuple[bytes, str]:
    """The digest of its file, and what is wrong with it, if anything."""
    try:
        content = photo.read_bytes()
        decode(content, least=1)
    except (OSError, UnreadablePhoto) as error:
        return b"", f"{photo}: {error}"
    return digest(content), ""


def digest_of(photo: Path) -> bytes:
    """The same of a photo that is known to be readable."""
    return digest(photo.read_bytes())


def digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=16).digest()
