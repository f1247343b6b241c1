"""COCO metrics: average precision and recall of detections."""
