"""Whether the photos of rows can be read, asked before hours of work rest on it."""

import os
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from models.errors import UnreadablePhoto
from models.preprocessing import decode
from training.errors import DataError
from training.table import Row

NAMED = 20  # of the photos at fault
SHOWN_AFTER_S = 1.0


def require_readable(rows: Sequence[Row]) -> None:
    """Decodes each photo, as small as its format allows. Raises DataError naming those that cannot be read."""
    photos = list(dict.fromkeys(photo for row in rows for photo in row.photos))
    with warnings.catch_warnings(), ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        # `decode` sets and resets this filter, which all threads share: one that is done must not take it from others.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        looked_at = tqdm(
            pool.map(fault, photos),
            desc="looking at photos",
            total=len(photos),
            delay=SHOWN_AFTER_S,
            file=sys.stderr,
        )
        faults = [found for found in looked_at if found]
    if faults:
        named = "".join(f"\n  {found}" for found in faults[:NAMED])
        more = f"\n  and {len(faults) - NAMED} more" if len(faults) > NAMED else ""
        raise DataError(
            f"{len(faults)} photos cannot be read: mend them, or take them out of the table{named}{more}"
        )


def fault(photo: Path) -> str | None:
    """What is wrong with it."""
    try:
        decode(photo.read_bytes(), least=1)
    except (OSError, UnreadablePhoto) as error:
        return f"{photo}: {error}"
    return None
