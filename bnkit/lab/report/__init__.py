"""A folder of record files as one HTML page that needs no network: `gather(folder)`, then `page(experiments)`."""

from bnkit.lab.report.gather import Experiment, gather
from bnkit.lab.report.page import is_page, page

__all__ = ["Experiment", "gather", "is_page", "page"]
