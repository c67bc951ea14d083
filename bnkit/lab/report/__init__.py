"""One HTML page of a folder's record files, without network: `gather(folder)`, then `page(experiments, date=…)`."""

from bnkit.lab.report.gather import Experiment, gather
from bnkit.lab.report.page import is_page, page

__all__ = ["Experiment", "gather", "is_page", "page"]
