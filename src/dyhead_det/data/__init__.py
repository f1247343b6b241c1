"""Data sets to batches: augmentation, sampling, loading; `coco/` reads annotation files."""
