"""Whether two lists of detections are the same one for one, whatever the order of near equals."""

import torch


def assert_same_detections(expected, found, *, box_tolerance, score_tolerance):
    """Match by label and nearest box; both are (boxes, scores, labels)."""
    boxes, scores, labels = found
    assert len(expected[0]) == len(boxes)
    is_free = torch.ones(len(boxes), dtype=torch.bool)
    for box, score, label in zip(*expected, strict=True):
        fits = is_free & (labels == label) & ((scores - score).abs() < score_tolerance)
        distances = torch.where(fits, (boxes - box).abs().amax(1), torch.inf)
        nearest = distances.argmin()
        assert distances[nearest] < box_tolerance
        is_free[nearest] = False
