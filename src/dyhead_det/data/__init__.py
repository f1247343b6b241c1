"""COCO-format data sets: reading, repair, augmentation, loading."""
