"""Whether the intervals of a differential hold what they promise: ``python -m benchmarks.statistics``."""
