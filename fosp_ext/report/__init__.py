"""From run folders to one page that compares them (docs/report.md)."""
