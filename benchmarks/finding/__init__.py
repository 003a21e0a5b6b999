"""How well cells are found: ``python -m benchmarks.finding DATA`` writes the one table of ``docs/finding.md``."""
