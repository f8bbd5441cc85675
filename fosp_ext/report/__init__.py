"""From run folders to one page that compares them (docs/reference/report.md)."""
