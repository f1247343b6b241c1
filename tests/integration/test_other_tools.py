"""What the page on other tools writes is what these tools document, and read where they are here.

FiftyOne, Label Studio's SDK and CVAT's reader (datumaro) are too heavy to be installed for tests:
their tests run where somebody has them.
"""

import json
import re
from pathlib import Path

import pytest
from PIL import Image
from pycocotools.coco import COCO

PAGE = Path(__file__).parents[2] / "docs" / "tools.md"
CATEGORIES = [{"id": 7, "name": "square"}, {"id": 11, "name": "circle"}]


@pytest.fixture
def found(tmp_path, monkeypatch) -> Path:
    """The folder that `predict` leaves, with what the recipes of the page make of it."""
    monkeypatch.chdir(tmp_path)
    images = []
    for number, name in enumerate(("a.jpg", "empty.jpg"), start=1):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.new("RGB", (200, 100)).save(tmp_path / "photos" / name)
        images.append({"id": number, "file_name": f"photos/{name}", "width": 200, "height": 100})
    detections = [
        {"image_id": 1, "category_id": 11, "bbox": [20, 10, 50, 40], "score": 0.75},
        {"image_id": 1, "category_id": 7, "bbox": [0, 0, 200, 100], "score": 0.5},
    ]
    (tmp_path / "found").mkdir()
    photos = {"images": images, "categories": CATEGORIES}
    (tmp_path / "found" / "images.json").write_text(json.dumps(photos))
    (tmp_path / "found" / "detections.json").write_text(json.dumps(detections))
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)\n```", PAGE.read_text("utf-8"), re.DOTALL):
        if "best.pt" not in block and "fiftyone" not in block:  # they need more than this folder
            exec(block, names)
    return tmp_path / "found"


def boxes(value):
    return [value[side] for side in ("x", "y", "width", "height")]


def test_label_studio_gets_per_cent_of_the_image(found):
    """https://labelstud.io/guide/predictions: x, y, width and height in [0, 100]."""
    task, empty = json.loads((found / "label_studio.json").read_text())
    assert task["data"] == {"image": "/data/local-files/?d=photos/a.jpg"}
    (prediction,) = task["predictions"]
    assert prediction["score"] == 0.75
    first, second = prediction["result"]
    assert boxes(first["value"]) == pytest.approx([10, 10, 25, 40])
    assert boxes(second["value"]) == pytest.approx([0, 0, 100, 100])
    assert first["value"]["rectanglelabels"] == ["circle"]
    assert (first["original_width"], first["original_height"]) == (200, 100)
    assert first["id"] != second["id"]
    assert empty["predictions"][0]["result"] == []


def test_label_studios_own_check_takes_the_tasks(found):
    interface = pytest.importorskip("label_studio_sdk.label_interface")
    labels = "".join(f'<Label value="{category["name"]}"/>' for category in CATEGORIES)
    view = interface.LabelInterface(
        '<View><Image name="image" value="$image"/>'
        f'<RectangleLabels name="label" toName="image">{labels}</RectangleLabels></View>'
    )
    for task in json.loads((found / "label_studio.json").read_text()):
        assert view.validate_task({"data": task["data"]})
        (prediction,) = task["predictions"]
        assert view.validate_prediction(prediction, return_errors=True) == []


def test_cvat_gets_a_coco_file_of_rectangles(found):
    """https://docs.cvat.ai, COCO: rectangles where `segmentation` is empty."""
    coco = COCO(found / "instances.json")
    assert [image["file_name"] for image in coco.loadImgs(coco.getImgIds())] == [
        "a.jpg",
        "empty.jpg",
    ]
    first, second = coco.loadAnns(coco.getAnnIds(imgIds=[1]))
    assert (first["bbox"], first["area"]) == ([20, 10, 50, 40], 2000)
    assert first["segmentation"] == second["segmentation"] == []
    assert coco.loadCats(first["category_id"])[0]["name"] == "circle"


@pytest.mark.filterwarnings("ignore")
def test_cvats_reader_takes_the_coco_file(found, tmp_path):
    datumaro = pytest.importorskip("datumaro")
    annotations = tmp_path / "set" / "annotations"
    annotations.mkdir(parents=True)
    (annotations / "instances_default.json").write_bytes((found / "instances.json").read_bytes())
    (tmp_path / "photos").rename(tmp_path / "set" / "images")
    dataset = datumaro.Dataset.import_from(str(tmp_path / "set"), "coco_instances")
    boxes_of = {item.id: sorted(box.get_bbox() for box in item.annotations) for item in dataset}
    assert boxes_of == {"a": [[0, 0, 200, 100], [20, 10, 50, 40]], "empty": []}


def test_fiftyone_gets_the_fields_that_its_coco_labels_have(found):
    """`fiftyone.utils.coco.add_coco_labels`: a list with image_id, category_id, bbox and score."""
    for one in json.loads((found / "detections.json").read_text()):
        assert {"image_id", "category_id", "bbox", "score"} <= set(one)


@pytest.mark.filterwarnings("ignore")
def test_fiftyones_reader_takes_images_and_detections(found):
    """Without its database: the importer and the objects that `add_coco_labels` makes labels of."""
    coco = pytest.importorskip("fiftyone.utils.coco")
    importer = coco.COCODetectionDatasetImporter(
        data_path=str(found.parent), labels_path=str(found / "images.json"), include_id=True
    )
    with importer:
        paths = [Path(path).name for path, *_ in importer]
    assert paths == ["a.jpg", "empty.jpg"]
    classes = {category["id"]: category["name"] for category in CATEGORIES}
    for one in json.loads((found / "detections.json").read_text()):
        label = coco.COCOObject.from_anno_dict(one).to_detection((200, 100), classes)
        assert label.label == classes[one["category_id"]]
        assert label.confidence == one["score"]
