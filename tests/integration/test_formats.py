"""Runs on the same data in every format, and on a share of the training images."""

import pytest
import torch

from dyhead_det.checkpoints.checkpoint import load_checkpoint
from dyhead_det.data.formats.parts import read_parts
from dyhead_det.data.formats.source import Source
from dyhead_det.data.formats.write import write_dataset
from dyhead_det.errors import CheckpointError, DatasetError
from dyhead_det.prediction.evaluate_checkpoint import evaluate_checkpoint
from dyhead_det.reporting.metrics_file import read_rows
from dyhead_det.training.train import train

from conftest import draw_tiny_dataset, make_config

CPU = torch.device("cpu")


def run(root, out, *, steps=4, val=None, resume=False):
    named = {"train": {"annotations": None, "images": None}, "val": None}
    config = make_config(root, train={"steps": steps, "eval_every_epochs": 1}, data=named)
    data = config.data.model_validate({**config.data.model_dump(), "val": val or {}})
    return train(config.model_copy(update={"data": data}), out, device=CPU, resume=resume)


def weights(out):
    return load_checkpoint(out / "last.pt").model


@pytest.mark.slow
def test_the_same_data_in_every_format_train_the_same_weights(tiny_dataset, tmp_path):
    _, parts = read_parts(Source(tiny_dataset))
    everything = {"train": [parts["train"]], "val": [parts["train"]]}
    write_dataset(everything, tmp_path / "yolo", "yolo")
    _, again = read_parts(Source(tmp_path / "yolo"))
    for form in ("voc", "coco"):
        write_dataset({name: [part] for name, part in again.items()}, tmp_path / form, form)
    results = [
        run(tmp_path / form, tmp_path / f"run_{form}", steps=2) for form in ("yolo", "voc", "coco")
    ]
    assert [result.best for result in results] == [results[0].best] * 3
    first, *others = (weights(tmp_path / f"run_{form}") for form in ("yolo", "voc", "coco"))
    for other in others:
        assert all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.slow
def test_a_share_is_the_same_when_resumed_and_evaluated_and_told_when_it_is_not(tmp_path):
    folder, val = draw_tiny_dataset(tmp_path / "tiny"), {"split": 0.25}
    run(folder, tmp_path / "straight", val=val)
    run(folder, tmp_path / "resumed", steps=2, val=val)
    run(folder, tmp_path / "resumed", val=val, resume=True)
    checkpoint = tmp_path / "straight" / "last.pt"
    assert load_checkpoint(checkpoint).held_out.startswith("1 images, 1 annotations, checksum ")
    rows = [row for row in read_rows(tmp_path / "straight" / "metrics.jsonl") if "AP" in row]
    again = evaluate_checkpoint(checkpoint, tmp_path / "eval", device=CPU)
    assert again.metrics["AP"] == rows[-1]["AP"]
    resumed = load_checkpoint(tmp_path / "resumed" / "last.pt")
    assert (resumed.step, resumed.held_out) == (4, load_checkpoint(checkpoint).held_out)

    (folder / "images" / "3.png").unlink()
    text = (folder / "train.json").read_text().replace('"3.png"', '"0.png"')
    (folder / "train.json").write_text(text)
    with pytest.raises(DatasetError, match=r"the training data have changed, and the images that"):
        evaluate_checkpoint(checkpoint, tmp_path / "eval", device=CPU)
    with pytest.raises(CheckpointError):
        run(folder, tmp_path / "resumed", steps=6, val=val, resume=True)
