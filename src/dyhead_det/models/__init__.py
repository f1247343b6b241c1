"""From configuration to detector: bodies, pyramids, detectors and their weights."""
