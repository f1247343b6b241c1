"""Loading a trained detector: what is refused before a file is read."""

import pytest

from dyhead_det.errors import ConfigError
from dyhead_det.prediction.load import load


@pytest.mark.parametrize("argument", ["short_edge", "long_edge"])
@pytest.mark.parametrize("value", [0, -1, 0.5, True, 10**6])
def test_an_edge_out_of_range_is_named_before_the_file_is_read(tmp_path, argument, value):
    with pytest.raises(ValueError, match=rf"^{argument} is a whole number from 1 to 16384"):
        load(tmp_path / "nowhere.pt", **{argument: value})


def test_half_precision_is_asked_for_by_name(tmp_path):
    with pytest.raises(ValueError, match="amp is one of off, bf16, fp16, not 'half'"):
        load(tmp_path / "none.pt", amp="half")


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ({"tile": 63}, "tile is a whole number of pixels from 64 on, not 63"),
        ({"tile": 64.5}, "tile is a whole number"),
        ({"tile": 64, "tile_overlap": 0.95}, "tile_overlap is at most 0.9, not 0.95"),
        ({"tile": 64, "tile_overlap": -0.1}, "tile_overlap is a number from 0 to 1"),
        ({"tile_overlap": 0.2}, "tile_overlap goes with tile"),
        ({"tta": "flop"}, "tta is flip and scales from 0.25 to 4, .* not 'flop'"),
        ({"tta": "flip,,1.2"}, "not ''"),
        ({"tta": "flip,5"}, "not '5'"),
        ({"tta": "nan"}, "not 'nan'"),
    ],
)
def test_views_out_of_range_are_named_before_the_file_is_read(tmp_path, views, message):
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "nowhere.pt", **views)


def test_an_exported_file_has_one_size(tmp_path):
    with pytest.raises(ConfigError, match="an ONNX file has one size: no scales in --tta"):
        load(tmp_path / "nowhere.onnx", tta="flip,0.8")
