"""Makes and measures checkpoints: data, the loop, losses, early stopping, calibration, evaluation.

Knows nothing of jobs, queues or HTTP. The error tree:

    TrainingError
    ├── RecipeError      a recipe names an unknown setting or an impossible number
    ├── DataError        the table or its photos cannot be used; the message names the row or column
    ├── AnotherRun       the output folder belongs to a run of another recipe or table
    └── TooManyProcesses more were started for one run than find each other on this machine
"""

from training.errors import AnotherRun, DataError, RecipeError, TooManyProcesses, TrainingError

__all__ = ["AnotherRun", "DataError", "RecipeError", "TooManyProcesses", "TrainingError"]
