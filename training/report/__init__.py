"""The report that a person reads: one page about a checkpoint on a table's rows.

Order of the work: `measured` runs the rows under every condition, `trust`, `confusion` and `audit` look at what
came out, `page` puts it all into `training/templates`. Nothing here changes a checkpoint.
"""

from training.report.measured import Measured, measure_all
from training.report.page import write_report

__all__ = ["Measured", "measure_all", "write_report"]
