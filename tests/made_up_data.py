"""Ground truth and detections drawn at random: right ones, doubled, misplaced, of other classes."""

import numpy as np

from dyhead_det.contracts import Category, CategoryMap

CATEGORIES = CategoryMap((Category("cat", 3), Category("dog", 5), Category("rare", 9)))


def made_up(seed, *, num_images=7, crowds=0.1, decimals=None):
    """Return a COCO dictionary and results; with few decimals many scores and boxes are equal."""
    random = np.random.default_rng(seed)
    annotations, detections = [], []
    for image_id in range(1, num_images + 1):
        for number in range(random.integers(0, 8)):
            category = 9 if (image_id, number) == (2, 0) else int(random.choice([3, 5]))
            box = np.array([*random.uniform(0, 60, 2), *random.uniform(5, 40, 2)])
            if decimals is not None:
                box = box.round(decimals) + np.array([0, 0, 1, 1])
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": category,
                    "bbox": box.tolist(),
                    "area": float(box[2] * box[3]),
                    "iscrowd": int(random.uniform() < crowds),
                }
            )
            for _ in range(random.integers(0, 4)):
                moved = box + random.normal(0, random.choice([1, 4, 12]), 4)
                moved[2:] = moved[2:].clip(min=1)
                score = random.uniform()
                if decimals is not None:
                    moved, score = moved.round(decimals), round(score, 1)
                detected = category if random.uniform() < 0.8 else int(random.choice([3, 5, 9]))
                detections.append(
                    {
                        "image_id": image_id,
                        "category_id": detected,
                        "bbox": moved.tolist(),
                        "score": float(score),
                    }
                )
    truth = {
        "images": [{"id": image_id} for image_id in range(1, num_images + 1)],
        "annotations": annotations,
        "categories": [{"id": c.dataset_id, "name": c.name} for c in CATEGORIES],
    }
    return truth, detections
