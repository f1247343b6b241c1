"""Whatever a stranger's COCO file holds, it is read or refused in one line, within bounds.

Sound files of several tools are broken where it hurts: any value is replaced, deleted, wrapped,
repeated or exchanged for another, in one record or in a whole column.
"""

import contextlib
import copy
import json
import logging
import math
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dyhead_det.data.coco.dataset import load_coco
from dyhead_det.data.formats.source import Source
from dyhead_det.data.statistics import count
from dyhead_det.errors import DatasetError
from dyhead_det.escaping import printable
from dyhead_det.inspection.check import check_dataset, check_together

resource = pytest.importorskip("resource")  # where there are no bounds, nothing is shown

SECONDS, BYTES = 5, 2**30  # of processor time and of new memory, for files of 2 kB


def sound(**sections):
    boxes = [[1, 2, 30, 40], [50.5, 5, 20, 30], [60, 10, 25, 35], [10, 10, 80.25, 30]]
    return {
        "info": {"description": "shapes"},
        "images": [
            {"id": 7, "file_name": "a/one.png", "width": 100, "height": 50},
            {"id": 4, "file_name": "größe.png", "width": 100, "height": 50},
        ],
        "annotations": [
            {
                "id": n,
                "image_id": (7, 4)[n % 2],
                "category_id": (3, 9)[n // 2 % 2],
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": n // 4,
                "segmentation": [[box[0], box[1], box[0] + box[2], box[1] + box[3]]],
            }
            for n, box in enumerate(boxes, start=1)
        ],
        "categories": [
            {"id": 3, "name": "dog", "supercategory": "pet"},
            {"id": 9, "name": "cat", "supercategory": "pet"},
        ],
        **sections,
    }


def with_column(content, section, key, values):
    for record, value in zip(content[section], values, strict=True):
        record[key] = value
    return content


def without_boxes(*segmentations):
    content = with_column(sound(), "annotations", "segmentation", segmentations)
    for record in content["annotations"]:
        del record["bbox"]
    return content


RUNS = {"size": [50, 100], "counts": [55, 10, 4935]}
PACKED = {"size": [50, 100], "counts": "g1:go4"}
# What tools write, and what was found to hang, crash or mislead.
CORPUS = [
    sound(),
    sound(categories=[{"id": 0, "name": "pet"}, *sound()["categories"]]),
    with_column(
        with_column(sound(), "images", "id", ["img_1", "img_2"]),
        *("annotations", "image_id", ["img_1", "img_2", "img_1", "img_1"]),
    ),
    sound(
        images=[
            {
                "id": number,
                "width": 100,
                "height": 50,
                "coco_url": f"http://x/train2017/{number}.jpg",
            }
            for number in (7, 4)
        ]
    ),
    without_boxes(RUNS, PACKED, [[1, 2, 3, 4, 9, 9]], [5, 5, 9, 9]),
    without_boxes(*[{"size": [2**32, 5], "counts": [3, 4]}] * 4),
    with_column(sound(), "annotations", "bbox", [[0.1, 0.2, 0.5, 1.004]] * 4),
    with_column(sound(), "annotations", "bbox", [[10, 10, 80, 45], [20, 20, 90, 50]] * 2),
    with_column(sound(), "annotations", "category_id", [[3]] * 4),
    with_column(sound(), "images", "width", [[100]] * 2),
    with_column(sound(), "images", "width", [2**40] * 2),
    with_column(sound(), "categories", "name", ["a\ud800", "\x1b]0;owned\x07\x1b[2J"]),
    sound(annotations=[]),
]

JUNK = st.sampled_from(
    [
        *(None, True, False, 0, -1, 1, 0.5, -0.0, 1e308, 5e-324, math.nan, math.inf, -math.inf),
        *(2**31, 2**32, 2**40, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 10**30, 10**400),
        *("", " ", "7", "-7", "7.0", "\0", "\x1b[2J", "a\nb", "\u202e", "\ud800", "\udcff", "٣"),
        *("../x", "/etc/passwd", "C:\\x", "a\\b", "x" * 5000, "a/" * 3000, "\ufeff", "=1+1"),
        *([], [[]], [1], [[1]], [None] * 4, [1, 2, 3, 4], [[1, 2, 3, 4]] * 4, [1e999] * 4, {}),
        *({"size": [2**32, 5], "counts": [3, 4]}, {"size": [50, 100], "counts": "oooooooooooooo"}),
        *({"size": [50, 100], "counts": [2**31] * 8}, {"counts": {}}, RUNS, PACKED, {"id": {}}),
    ]
) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
WRAPS = st.sampled_from([lambda v: [v], lambda v: [[v]], lambda v: {"a": v}, lambda v: [v, v], str])
ACTIONS = st.sampled_from(["replace", "delete", "wrap", "repeat", "exchange", "column"])


def places(node, path=()):
    """Return the path of every value below a JSON value."""
    children = ()
    if isinstance(node, dict):
        children = node.items()
    elif isinstance(node, list):
        children = enumerate(node)
    return [
        place for key, child in children for place in ((*path, key), *places(child, (*path, key)))
    ]


def at(document, path):
    for key in path:
        document = document[key]
    return document


@st.composite
def broken_documents(draw):
    document = copy.deepcopy(draw(st.sampled_from(CORPUS)))
    for _ in range(draw(st.integers(1, 4))):
        paths = places(document)
        if not paths:
            break
        *above, last = draw(st.sampled_from(paths))
        parent = at(document, above)
        action = draw(
            st.sampled_from(["replace", "delete", "wrap", "repeat", "exchange", "column"])
        )
        if action == "replace":
            parent[last] = copy.deepcopy(draw(JUNK))
        elif action == "delete":
            del parent[last]
        elif action == "wrap":
            parent[last] = draw(WRAPS)(parent[last])
        elif action == "repeat" and isinstance(parent, list):
            parent.extend(copy.deepcopy([parent[last]]) * draw(st.integers(1, 20)))
        elif action == "exchange":
            parent[last] = copy.deepcopy(at(document, draw(st.sampled_from(paths))))
        elif action == "column":
            value = draw(JUNK)
            siblings = at(document, above[:-1]) if above else []
            for record in siblings if isinstance(siblings, list) else []:
                if isinstance(record, dict):
                    record[last] = copy.deepcopy(value)
    return document


class Listener(logging.Handler):
    """Keeps what is logged."""

    def __init__(self):
        super().__init__()
        self.messages = []

    def emit(self, record):
        self.messages.append(record.getMessage())


@contextlib.contextmanager
def bounded():
    """Let nothing take long, or much memory, or say what would disturb a terminal."""
    logger, listener = logging.getLogger("dyhead_det"), Listener()
    logger.addHandler(listener)
    before = resource.getrlimit(resource.RLIMIT_AS)
    num_pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (num_pages * resource.getpagesize() + BYTES, before[1]))
    started_at, said = time.process_time(), []
    try:
        yield
    except DatasetError as error:
        said.append(str(error))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        logger.removeHandler(listener)
    assert time.process_time() - started_at < SECONDS
    for message in (*said, *listener.messages):
        assert message == printable(message)  # and so on one line
        assert len(message) < 20_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("coco")


def require_sound(path, folder):
    """Read a file by both doors; what comes out must be what all the rest relies on."""
    found = check_dataset(Source(path, folder), opens_images=False)
    text = check_together([found]).text()
    assert all(line == printable(line) for line in text.split("\n"))
    dataset = load_coco(path, folder, split="train")
    assert not found.problems.refused  # or both refuse
    width, height = np.repeat(dataset.sizes_wh, np.diff(dataset.offsets), axis=0).T
    left, top, right, bottom = dataset.boxes.T
    assert np.all((left >= 0) & (top >= 0) & (right <= width) & (bottom <= height))
    assert np.all((right > left) & (bottom > top))
    assert np.all(np.isfinite(dataset.areas) & (dataset.areas > 0))
    assert np.all((dataset.labels >= 0) & (dataset.labels < len(dataset.categories)))
    assert len(set(dataset.image_ids.tolist())) == len(dataset) == count(dataset).num_images
    assert len(set(dataset.annotation_ids.tolist())) == len(dataset.labels)
    assert len(dataset.digest()) == 64
    json.dumps(dataset.ground_truth()).encode()
    json.dumps(dataset.categories.to_plain(), ensure_ascii=False).encode()


@given(document=broken_documents())
def test_a_broken_file_is_read_or_refused_in_one_line(folder, document):
    path = folder / "broken.json"
    path.write_text(json.dumps(document))
    with bounded():
        require_sound(path, folder)


@pytest.mark.parametrize("number", range(len(CORPUS)))
def test_every_file_of_the_corpus_is_read_or_refused_in_one_line(folder, number):
    path = folder / "corpus.json"
    path.write_text(json.dumps(CORPUS[number]))
    with bounded():
        require_sound(path, folder)


@given(data=st.data())
def test_damaged_bytes_are_read_or_refused_in_one_line(folder, data):
    content = bytearray(json.dumps(data.draw(st.sampled_from(CORPUS))).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(content)))
        end = start + data.draw(st.integers(0, 20))
        content[start:end] = data.draw(
            st.binary(max_size=8)
            | st.sampled_from([b"", b"[", b"{", b"]", b'"', b"-", b"e9", b","])
        )
    path = folder / "damaged.json"
    path.write_bytes(content)
    with bounded():
        require_sound(path, folder)
