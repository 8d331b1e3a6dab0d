"""What can go wrong with a checkpoint or a product.

ModelsError
├── CheckpointError          the directory is not a readable checkpoint
│   └── NewerFormat          it was written by a later Tagsmith
├── ExportRefused            an exported checkpoint would not tag as the one it is made from
├── ExtraMissing             a library of an optional extra is not installed
├── UnreadableTable          a table of products cannot be read
├── BackboneUnavailable      a pretrained tower cannot be had from where the recipe says
└── UnreadablePhoto          the bytes of a photo cannot be decoded: a fault of that product alone
"""


class ModelsError(Exception):
    """Anything that `models` raises on purpose."""


class CheckpointError(ModelsError):
    """The directory is not a complete, readable checkpoint."""


class NewerFormat(CheckpointError):
    """The checkpoint's format number is above the one this code knows."""


class BackboneUnavailable(ModelsError):
    """A pretrained tower cannot be loaded; the message names the setting to change."""


class ExportRefused(ModelsError):
    """The towers in less than float32 change too many tags, or there are too few products to tell."""


class ExtraMissing(ModelsError):
    """What is asked for needs a library of an extra; the message names the command that installs it."""


class UnreadableTable(ModelsError):
    """A table of products is not one; the message names the row at fault."""


class UnreadablePhoto(ModelsError):
    """A photo's bytes are not a picture that can be decoded."""
