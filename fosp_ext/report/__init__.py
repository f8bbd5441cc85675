"""The HTML report: one page that compares run folders (docs/reference/report.md)."""
