"""Conventions of detectron2 and mmdetection."""
