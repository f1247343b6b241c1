"""From configuration to detector: backbones, pyramids, detectors and their weights."""
