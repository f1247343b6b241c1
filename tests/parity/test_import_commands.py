"""An imported checkpoint is one like any other: every command takes it."""

import json

import published_checkpoints as checkpoints
import pytest
import torch
from typer.testing import CliRunner

from dyhead_det.checkpoints.checkpoint import load_checkpoint
from dyhead_det.cli.app import app
from dyhead_det.config.file import to_yaml
from dyhead_det.config.schema import parse_config, to_plain
from dyhead_det.pretrained.coco_categories import COCO_CATEGORIES

SIZE = ["--short-edge", "64", "--long-edge", "64"]


def keys_of_one_block():
    """The authors' ATSS, five blocks shorter."""
    keys = checkpoints.authors_keys("atss")
    return {n: s for n, s in keys.items() if "dyhead_tower." not in n or "dyhead_tower.0." in n}


def with_categories(folder, name, categories):
    """Write the annotations of a folder anew, its one object of the first category."""
    document = json.loads((folder / "train.json").read_text())
    document["categories"] = categories
    for annotation in document["annotations"]:
        annotation["category_id"] = categories[0]["id"]
    (folder / name).write_text(json.dumps(document))
    return str(folder / name)


@pytest.mark.slow
def test_every_command_takes_an_imported_checkpoint(tiny_dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": checkpoints.fill(keys_of_one_block(), seed=1)}, "published.pth")

    def run(*arguments):
        result = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
        assert result.exit_code == 0
        return result.output

    imported = run("weights", "import", "published.pth", "coco.pt")
    assert f"{len(keys_of_one_block())} tensors imported" in imported
    info = run("info", "coco.pt", "--height", 128, "--width", 128)
    assert "80: person, bicycle, " in info

    coco = [{"id": each.dataset_id, "name": each.name} for each in COCO_CATEGORIES]
    truth = with_categories(tiny_dataset, "coco.json", coco)
    images = tiny_dataset / "images"
    scores = run("eval", "coco.pt", "--data", truth, "--images", images, "--device", "cpu", *SIZE)
    assert "AP50" in scores
    detections = json.loads((tmp_path / "eval" / "detections.json").read_text())
    assert {each["category_id"] for each in detections} <= {each["id"] for each in coco}
    run("predict", "coco.pt", images, "--out", "found", "--min-score", 0, "--device", "cpu", *SIZE)
    assert json.loads((tmp_path / "found" / "detections.json").read_text())
    run("export", "coco.pt", "coco.onnx", "--check-image", images / "0.png", *SIZE)
    assert (tmp_path / "coco.onnx").is_file()

    other = [{"id": 5, "name": "Stop Sign"}, {"id": 6, "name": "platelet"}]
    with_categories(tiny_dataset, "train.json", other)
    config = load_checkpoint(tmp_path / "coco.pt").config
    split = {"annotations": "train.json", "images": "images"}
    sections = to_plain(config)
    sections["data"] |= {"root": str(tiny_dataset), "train": split, "val": split, "num_workers": 0}
    sections["model"]["input"] |= {"short_edge": 64, "long_edge": 64}
    sections["model"]["weights"] = "coco.pt"
    sections["train"] |= {"steps": 1, "batch_size": 2}
    sections["schedule"]["warmup_steps"] = 0
    (tmp_path / "mine.yaml").write_text(to_yaml(parse_config(sections)))
    told = run("train", "mine.yaml", "--out", "run", "--device", "cpu")
    assert "classes taken by name: Stop Sign; classes that start anew: platelet" in told
    assert load_checkpoint(tmp_path / "run" / "best.pt").categories.names == (
        "Stop Sign",
        "platelet",
    )
