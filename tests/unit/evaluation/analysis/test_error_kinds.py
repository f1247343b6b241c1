"""Errors by kind against the definition of TIDE (arXiv 2008.08115), written in loops.

The reference follows section 2 of the paper and the authors' program image by image, detection by
detection; against the program itself the numbers were compared once, with differences below 1e-15.
"""

import numpy as np
import pytest

from dyhead_det.evaluation.analysis.error_kinds import KINDS, error_kinds
from dyhead_det.evaluation.matching import match

from made_up_data import CATEGORIES, made_up


def iou(one, other):
    (x1, y1, w1, h1), (x2, y2, w2, h2) = one, other
    width = min(x1 + w1, x2 + w2) - max(x1, x2)
    height = min(y1 + h1, y2 + h2) - max(y1, y2)
    common = max(width, 0) * max(height, 0)
    return common / (w1 * h1 + w2 * h2 - common)


def sort_image(objects, detections):
    """Return (kind, detection, object) of all errors; detections get `used`, objects `finder`."""
    errors = []
    for each in objects:
        each["finder"] = None
    detections = sorted(detections, key=lambda each: -each["score"])
    for detection in detections:
        overlaps = [
            (iou(detection["bbox"], each["bbox"]), -number)
            for number, each in enumerate(objects)
            if each["finder"] is None and each["category_id"] == detection["category_id"]
        ]
        best, number = max(overlaps, default=(0, 0))
        detection["used"] = best >= 0.5
        if detection["used"]:
            objects[-number]["finder"] = detection
    for detection in detections:
        if detection["used"]:
            continue
        same, other = (0, None), (0, None)
        for each in objects:
            overlap = iou(detection["bbox"], each["bbox"])
            if each["category_id"] == detection["category_id"]:
                same = max(same, (overlap, each), key=lambda pair: pair[0])
            else:
                other = max(other, (overlap, each), key=lambda pair: pair[0])
        if 0.1 <= same[0] <= 0.5:
            errors.append(("localization", detection, same[1]))
        elif other[0] >= 0.5:
            errors.append(("class", detection, other[1]))
        elif same[0] >= 0.5:
            errors.append(("duplicate", detection, same[1]))
        elif max(same[0], other[0]) <= 0.1:
            errors.append(("background", detection, None))
        else:
            errors.append(("both", detection, None))
    mendable = [id(each) for kind, _, each in errors if kind in ("class", "localization")]
    errors += [
        ("missed", None, each)
        for each in objects
        if each["finder"] is None and id(each) not in mendable
    ]
    return errors


def ap_of(points, counts):
    """Return the mean AP over classes, of (class, score, is right) and the objects of each."""
    aps = []
    for category, number in counts.items():
        own = sorted((p for p in points if p[0] == category), key=lambda point: -point[1])
        if number == 0:
            aps += [0.0] if own else []
            continue
        curve, true = [], 0
        for seen, (_, _, is_right) in enumerate(own, start=1):
            true += is_right
            curve.append((true / number, true / seen))
        heights = [
            max((p for recall, p in curve if recall >= wanted), default=0)
            for wanted in np.linspace(0, 1, 101)
        ]
        aps.append(np.mean(heights))
    return np.mean(aps)


def reference(truth, detections):
    """Return counts and gains by kind, and AP50."""
    errors, right, counts = [], [], {}
    for each in truth["annotations"]:
        counts[each["category_id"]] = counts.get(each["category_id"], 0) + 1
    for image in truth["images"]:
        objects = [dict(a) for a in truth["annotations"] if a["image_id"] == image["id"]]
        found = [dict(d) for d in detections if d["image_id"] == image["id"]]
        errors += sort_image(objects, found)
        right += [(d["category_id"], d["score"], True) for d in map(dict.copy, found) if d["used"]]
    wrong = [(d["category_id"], d["score"], False) for _, d, _ in errors if d is not None]
    ap50, gains = ap_of(right + wrong, counts), {}
    for kind in KINDS:
        points, remaining, taken = list(right), dict(counts), {}
        mendable = [e for e in errors if e[0] in ("class", "localization")]
        for error in sorted(mendable, key=lambda e: -e[1]["score"]):
            if error[2]["finder"] is None:
                taken.setdefault(id(error[2]), error)
        for error in errors:
            of_kind, detection, about = error
            if of_kind != kind:
                if detection is not None:
                    points.append((detection["category_id"], detection["score"], False))
            elif kind == "missed":
                remaining[about["category_id"]] -= 1
            elif about is not None and taken.get(id(about)) is error:
                points.append((about["category_id"], detection["score"], True))
        gains[kind] = max(0, ap_of(points, remaining) - ap50)
    return {kind: sum(e[0] == kind for e in errors) for kind in KINDS}, gains, ap50


@pytest.mark.parametrize("seed", range(10))
def test_kinds_and_gains_are_those_of_the_definition(seed):
    truth, detections = made_up(seed, num_images=12, crowds=0)
    counts, gains, ap50 = reference(truth, detections)
    got = error_kinds(match(truth, detections))
    assert got.counts == counts
    assert got.ap50 == pytest.approx(ap50, abs=1e-12)
    assert got.gains == pytest.approx(gains, abs=1e-12)
    for kind in KINDS:
        assert sum(of_class[kind] for of_class in got.counts_of_class) == counts[kind]
    assert len(got.counts_of_class) == len(CATEGORIES)


def test_one_error_of_each_kind():
    def entry(category, box, **more):
        return {"image_id": 1, "category_id": category, "bbox": box, **more}

    truth = {
        "images": [{"id": 1}],
        "categories": [{"id": 1}, {"id": 2}],
        "annotations": [
            entry(1, [0, 0, 10, 10]),  # found, and found again
            entry(1, [100, 0, 10, 10]),  # found in the wrong place: IoU 1/3
            entry(2, [200, 0, 10, 10]),  # found as another class
            entry(2, [300, 0, 10, 10]),  # missed
        ],
    }
    detections = [
        entry(1, [0, 0, 10, 10], score=0.9),
        entry(1, [0, 0, 10, 9], score=0.8),  # duplicate
        entry(1, [105, 0, 10, 10], score=0.7),  # localization
        entry(1, [200, 0, 10, 10], score=0.6),  # class
        entry(1, [305, 0, 10, 10], score=0.5),  # both
        entry(1, [400, 0, 10, 10], score=0.4),  # background
    ]
    got = error_kinds(match(truth, detections))
    assert got.counts == dict.fromkeys(KINDS, 1)
    # AP of class 1: recall .5 with precision 1; of class 2: 0.
    assert got.ap50 == pytest.approx(51 / 101 / 2)
    # Mended: class 1 has two right among the best three, class 2 has one of two at once.
    assert got.gains["localization"] == pytest.approx((51 + 50 * 2 / 3) / 101 / 2 - 51 / 101 / 2)
    assert got.gains["class"] == pytest.approx(51 / 101 / 2)
    assert got.gains["missed"] == 0
