"""The size that a rebuilt detector resizes images to."""

import pytest

from dyhead_det.config.schema import InputConfig
from dyhead_det.errors import ConfigError
from dyhead_det.prediction.rebuilding import _test_size


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ((None, None), (800, 1333)),
        ((400, None), (400, 666)),  # 400 * 1333 / 800 = 666.5, rounded to even
        ((None, 2666), (1600, 2666)),
        ((640, 640), (640, 640)),
        ((None, 1), (1, 1)),
        ((16384, None), (16384, 16384)),
    ],
)
def test_a_lone_edge_keeps_the_proportion_of_training(asked, expected):
    assert _test_size(InputConfig(short_edge=800, long_edge=1333), *asked) == expected


def test_a_short_edge_longer_than_the_long_one_is_an_error():
    with pytest.raises(ConfigError, match="short edge 900 is longer than long edge 600"):
        _test_size(InputConfig(), 900, 600)
