"""What the towers of a checkpoint make of rows, for those who want to learn something else from it."""

import sys
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from tqdm import tqdm

from models.checkpoint import Checkpoint
from training.data import Collator, Products
from training.device import device_of
from training.evaluation import BATCH
from training.table import Row


def embeddings(checkpoint: Checkpoint, rows: Sequence[Row], workers: int) -> NDArray[np.float32]:
    """The text's and the photos' embedding side by side, (N, 2 D); a missing one is the learned "absent" embedding.

    Raises DataError for a photo that cannot be read.
    """
    loader = DataLoader(
        Products(rows, checkpoint.preprocessor),
        batch_size=BATCH,
        collate_fn=Collator(()),
        num_workers=workers,
    )
    device = device_of(checkpoint.model)
    checkpoint.model.to(device)
    batches = []
    with torch.inference_mode():
        for labelled in tqdm(loader, desc="embedding", file=sys.stderr):
            embedded = checkpoint.model.embed(labelled.batch.to(device))
            batches.append(torch.cat([embedded.text, embedded.photos], dim=1).cpu().numpy())
    return np.concatenate(batches)
