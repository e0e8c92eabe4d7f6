"""What an audit came to, as a page for a browser, as JSON, and as a table for a terminal."""

from attacks.report.page import figures, write
from attacks.report.table import table

__all__ = ["figures", "table", "write"]
