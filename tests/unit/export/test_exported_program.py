"""A file of torch.export computes the maps of the module at sizes that were not recorded."""

import json
from collections import OrderedDict

import pytest
import torch
from torch import nn
from torchvision.models.swin_transformer import ShiftedWindowAttention

from dyhead_det.dyhead.head import DyHead
from dyhead_det.errors import ConfigError, ExportError
from dyhead_det.export.backbone import export_backbone
from dyhead_det.export.exported_program import (
    METADATA,
    measure_difference,
    recordable,
    write_program,
)
from dyhead_det.export.options import ExportOptions
from dyhead_det.models.backbones.pyramid import DyHeadBackbone


class TwoLevels(nn.Module):
    """A pyramid of two levels, with strides 2 and 4."""

    def __init__(self):
        super().__init__()
        self.finer = nn.Conv2d(3, 16, kernel_size=3, stride=2, padding=1)
        self.coarser = nn.Conv2d(16, 16, kernel_size=3, stride=2, padding=1)

    def forward(self, images):
        finer = self.finer(images)
        return OrderedDict(p1=finer, p2=self.coarser(finer))


@pytest.mark.slow  # seconds, for PyTorch's compiler is imported
def test_backbone_and_dyhead_are_the_same_at_other_sizes(tmp_path):
    path = tmp_path / "backbone.pt2"
    dyhead = DyHead(16, 1, zero_init_offsets=False, deform_backend="torchvision")
    backbone = DyHeadBackbone(TwoLevels(), nn.Identity(), dyhead, out_channels=16).eval()
    write_program(backbone, path, size_divisible=4, metadata={"levels": {"p1": 2, "p2": 4}})
    dyhead.deform_backend = "gather"  # the fast one, which is not recorded
    assert measure_difference(path, backbone, size_divisible=4) < 1e-5
    files = {METADATA: ""}
    loaded = torch.export.load(path, extra_files=files).module()
    assert json.loads(files[METADATA]) == {"levels": {"p1": 2, "p2": 4}}
    maps = loaded(torch.rand(5, 3, 20, 8))
    assert {name: tuple(x.shape) for name, x in maps.items()} == {
        "p1": (5, 16, 10, 4),
        "p2": (5, 16, 5, 2),
    }


def test_a_backbone_that_looks_at_numbers_is_refused_in_a_line(tmp_path):
    class Looks(nn.Module):
        def forward(self, images):
            return {"p1": images[:, :, : int(images.shape[2]) % 7]}

    with pytest.raises(ExportError, match=r"^torch.export cannot record this backbone .*: .+\Z"):
        write_program(Looks(), tmp_path / "backbone.pt2", size_divisible=4, metadata={})


def test_a_swin_backbone_is_refused_before_it_takes_hours():
    attention = ShiftedWindowAttention(8, window_size=[2, 2], shift_size=[0, 0], num_heads=1)
    with pytest.raises(ExportError, match="does not record a Swin backbone"):
        recordable(nn.Sequential(attention))


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2), (4, 1)])
def test_same_padding_is_that_of_timm_where_sizes_are_multiples_of_the_stride(
    kernel, stride, dilation
):
    layers = pytest.importorskip("timm.layers")
    conv = layers.Conv2dSame(2, 3, kernel, stride, dilation=dilation)
    recorded = recordable(nn.Sequential(conv))
    assert recorded[0] is not conv
    for height, width in ((8, 12), (4, 20)):
        x = torch.rand(2, 2, height, width)
        assert torch.equal(recorded(x), conv(x))


def test_options_of_onnx_files_and_existing_files_are_refused(tmp_path):
    out = tmp_path / "backbone.pt2"
    with pytest.raises(ConfigError, match=r"takes --deform only"):
        export_backbone(tmp_path / "best.pt", out, ExportOptions(half=True))
    out.write_bytes(b"mine")
    with pytest.raises(ConfigError, match=r"is there already"):
        export_backbone(tmp_path / "best.pt", out, ExportOptions(deform="gather"))
    assert out.read_bytes() == b"mine"
