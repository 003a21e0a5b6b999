"""What ``count`` is made of: jobs, the pipeline, workers and clusters, shards on disk, and the tables."""
