"""What shows something: list, stats, top, metrics."""
