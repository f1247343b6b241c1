"""Advice on slow data names what can still be changed."""

import pytest

from dyhead_det.reporting.loading_advice import loading_advice

USUAL = {"num_workers": 2, "num_cores": 8, "pixel_ratio": 1.0, "is_photometric": False}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, "raise data.num_workers from 2 to 7"),
        ({"num_workers": 0, "num_cores": 1}, "set data.num_workers to 1"),
        ({"num_workers": 7}, "move the images to a faster disk"),
        ({"num_workers": 7, "pixel_ratio": 9.0}, "smaller, they have 9 times the pixels"),
        ({"num_workers": 7, "is_photometric": True}, "set data.augment.photometric to false"),
    ],
)
def test_advice_fits_the_configuration(changed, expected):
    advice = loading_advice(share=0.43, **{**USUAL, **changed})
    assert advice.startswith("waiting for data takes 43% of the training time: ")
    assert expected in advice


def test_a_fifth_of_the_time_is_tolerable():
    assert loading_advice(share=0.2, **USUAL) is None
    assert loading_advice(share=0.21, **USUAL) is not None
