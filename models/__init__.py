"""The networks and the checkpoint: from a product to tags with confidence, evidence and a decision.

Knows no queue, no database, no HTTP and no training loop. Public names below; the error tree is in
`models/errors.py`.
"""

from models.errors import BackboneUnavailable, CheckpointError, ModelsError, NewerFormat, UnreadablePhoto
from models.fusion import Batch
from models.product import Alternative, Evidence, Example, Product, SeenPhoto, Tag, Tagging
from models.tagger import Tagger
from models.taxonomy import Attribute, Taxonomy

__all__ = [
    "Alternative",
    "Attribute",
    "BackboneUnavailable",
    "Batch",
    "CheckpointError",
    "Evidence",
    "Example",
    "ModelsError",
    "NewerFormat",
    "Product",
    "SeenPhoto",
    "Tag",
    "Tagger",
    "Tagging",
    "Taxonomy",
    "UnreadablePhoto",
]
