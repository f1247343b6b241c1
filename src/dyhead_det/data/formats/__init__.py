"""Annotation formats: COCO, YOLO and Pascal VOC, read into one table and written from it."""
