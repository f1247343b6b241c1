"""Offsets and masks of a DyHead described, against values worked out by hand."""

import pytest
import torch

from dyhead_det.config.schema import DyHeadConfig
from dyhead_det.models.backbones.pyramid import build_dyhead
from dyhead_det.models.detectors import build_detector
from dyhead_det.reporting.dyhead_statistics import (
    ChangeStatistics,
    OffsetStatistics,
    dyhead_metrics,
    measure_changes,
    measure_offsets,
    offset_statistics,
    pyramids_of,
    warn_of_little_change,
    warn_of_lost_offsets,
)

from conftest import make_config


def offsets_of(dy, dx, *, mask_logit=0.0, size_hw=(4, 6)):
    offset = torch.zeros(2, 18, *size_hw)
    offset[:, 0::2], offset[:, 1::2] = dy, dx
    return offset, torch.full((2, 9, *size_hw), mask_logit).sigmoid()


def test_a_plain_convolution_has_no_tap_outside_though_it_reads_its_border():
    assert offset_statistics(*offsets_of(0.0, 0.0)) == OffsetStatistics(0, 0, 0, 0)


def test_offsets_are_lengths_and_taps_are_lost_where_nothing_is_read():
    found = offset_statistics(*offsets_of(0.0, 2.0))
    assert (found.mean_offset, found.max_offset) == (2, 2)
    # Of 6 columns the taps read 0..4, 0..5 and 1..5; two columns to the right, those at 4 and 5
    # are off the map: 1, 2 and 2 of 5 + 6 + 5.
    assert found.share_outside == pytest.approx(5 / 16)
    assert offset_statistics(*offsets_of(3.0, 4.0)).max_offset == 5
    assert offset_statistics(*offsets_of(0.0, 9.0)).share_outside == 1
    # Half a pixel outside is still half on the map.
    assert offset_statistics(*offsets_of(0.0, 0.5)).share_outside == 0


@pytest.mark.parametrize(("logit", "saturation"), [(0, 0), (4.0, 0), (5.0, 1), (-5.0, 1)])
def test_masks_near_0_or_1_are_saturated(logit, saturation):
    """The sigmoid of 4.6 is .99."""
    assert offset_statistics(*offsets_of(0, 0, mask_logit=logit)).mask_saturation == saturation


@pytest.mark.parametrize(
    ("dyhead", "places"),
    [
        ({"num_blocks": 2}, [(block, level) for block in range(2) for level in range(5)]),
        ({"num_blocks": 2, "scheme": "stacked"}, [(0, 2), (1, 2)]),
        ({"num_blocks": 1, "spatial": "conv"}, []),
        ({"num_blocks": 1, "attention": ["scale"], "scheme": "stacked"}, []),
        (None, []),
    ],
)
def test_offsets_are_measured_by_block_and_level_and_the_detector_is_left_alone(dyhead, places):
    detector = build_detector(
        make_config(model={"dyhead": dyhead}).model, num_classes=2, load_backbone_weights=False
    ).train()
    for name, parameter in detector.named_parameters():
        if "offset_and_mask.bias" in name:
            torch.nn.init.constant_(parameter, 2.0)
    module = detector.backbone.dyhead
    if module is None:
        assert dyhead_metrics(detector, [torch.zeros(3, 64, 64)]) == {}
        return
    levels, _ = pyramids_of(detector, [torch.zeros(3, 64, 64)])
    measured = measure_offsets(module, levels)
    assert list(measured) == places
    assert detector.training
    for statistics in measured.values():
        assert statistics.mean_offset == pytest.approx(2 * 2**0.5)
        assert statistics.mask_saturation == 0


def test_lost_offsets_are_worth_a_warning(caplog):
    fine, lost = OffsetStatistics(0.5, 2.0, 0.05, 0.0), OffsetStatistics(20.0, 60.0, 0.4, 0.9)
    warn_of_lost_offsets({(0, 0): fine})
    assert not caplog.messages
    warn_of_lost_offsets({(0, 0): fine, (0, 1): lost})
    (message,) = caplog.messages
    assert "40 % of the taps of block 0 on level 1 (offsets up to 60 pixels, 90 %" in message


def test_metrics_have_the_names_of_block_level_and_number_and_tell_the_scale():
    config = make_config(model={"dyhead": {"num_blocks": 1, "residual_scale": 0.25}})
    detector = build_detector(config.model, num_classes=2, load_backbone_weights=False)
    metrics = dyhead_metrics(detector, [torch.zeros(3, 64, 64)])
    assert len(metrics) == 5 * 4 + 5 * 2 + 2
    assert metrics["dyhead/block0/level4/mean_offset"] == 0
    assert metrics["dyhead/residual_scale/mean"] == 0.25
    assert metrics["dyhead/residual_scale/std"] == 0


@pytest.mark.parametrize("scheme", ["levels", "stacked"])
def test_what_is_added_is_told_as_a_share_of_the_pyramid(scheme):
    dyhead = build_dyhead(DyHeadConfig(num_blocks=1, scheme=scheme, residual_scale=0.5), 16)
    levels = [30 * torch.randn(2, 16, 8, 6), torch.randn(2, 16, 4, 3)]
    with torch.no_grad():
        attended = dyhead(levels)
    added = [after - before for before, after in zip(levels, attended, strict=True)]
    measured = measure_changes(levels, attended)
    for found, before, change in zip(measured, levels, added, strict=True):
        assert found.pyramid_rms == pytest.approx(float(before.std(correction=0)), rel=0.1)
        share = change.square().sum() / before.square().sum()
        assert found.change == pytest.approx(float(share.sqrt()), rel=1e-4)


def test_a_dyhead_that_hardly_changes_anything_is_worth_a_warning(caplog):
    off, on = ChangeStatistics(50.0, 0.006), ChangeStatistics(1.0, 0.25)
    warn_of_little_change([])
    warn_of_little_change([off, on])
    assert not caplog.messages
    warn_of_little_change([off, ChangeStatistics(14.0, 0.01)])
    (message,) = caplog.messages
    assert "by more than 1.0 %, whose maps have a root mean square of 14 to 50" in message
