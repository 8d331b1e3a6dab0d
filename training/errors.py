"""The errors of training; the tree is drawn in `training/__init__.py`."""


class TrainingError(Exception):
    """Anything that `training` raises on purpose."""


class RecipeError(TrainingError):
    """A recipe or a `--set` override cannot be used."""


class DataError(TrainingError):
    """The table or its photos cannot be used."""


class AnotherRun(TrainingError):
    """The output folder holds the state of a different run."""


class TooManyProcesses(TrainingError):
    """More processes were started for one run than find each other here."""
