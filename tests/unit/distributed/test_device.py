"""The choice of a device, and the way of images to it."""

import pytest
import torch

from dyhead_det.contracts import Prediction
from dyhead_det.distributed.device import (
    _as_prediction,
    _as_rows,
    choose_device,
    images_to_device,
    predictions_to_host,
)
from dyhead_det.errors import ConfigError


def test_auto_is_cuda_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpu", "'gpu' is unknown; allowed"),
        ("cuda:x", "is unknown; allowed"),
        ("meta", "meta is not supported"),
        ("cuda:1", "cuda:1 is not there; this PyTorch sees 1 CUDA devices"),
        ("mps", "mps is not there"),
    ],
)
def test_a_device_that_cannot_be_had_is_an_error(monkeypatch, name, message):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=message):
        choose_device(name)


def test_a_numbered_device_is_taken(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    assert choose_device("cpu") == torch.device("cpu")


def test_images_become_floats_up_to_one_and_floats_stay():
    bytes_image = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(3, 1, 1)
    floats = torch.rand(3, 2, 2)
    from_bytes, same = images_to_device([bytes_image, floats], torch.device("cpu"))
    assert from_bytes.flatten().tolist() == pytest.approx([0, 0.2, 1])
    assert torch.equal(same, floats)


def predictions(device):
    return [
        Prediction(
            boxes=100 * torch.rand(number, 4, device=device),
            scores=torch.rand(number, device=device),
            labels=torch.randint(2000, (number,), device=device),
        )
        for number in (3, 0, 1)
    ]


def test_predictions_come_to_the_host_as_they_were(device):
    there = predictions(device)
    here = predictions_to_host(there)
    for before, after in zip(there, here, strict=True):
        for key, value in after.items():
            torch.testing.assert_close(value, before[key].cpu(), rtol=0, atol=0)
    assert predictions_to_host([]) == []


def test_a_prediction_is_the_same_after_it_was_rows():
    for prediction in predictions("cpu"):
        again = _as_prediction(_as_rows(prediction))
        assert again.keys() == prediction.keys()
        for key, value in again.items():
            torch.testing.assert_close(value, prediction[key], rtol=0, atol=0)
