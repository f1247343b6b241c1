"""Products without gradients: the same numbers as `F.linear`, whatever the layout and the type."""

import pytest
import torch
import torch.nn.functional as F

from dyhead_det.layers import products
from dyhead_det.layers.products import linear


@pytest.mark.parametrize("has_onednn", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_it_is_a_linear_layer_for_any_strides(
    has_onednn: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_onednn:
        monkeypatch.setattr(products, "_ONEDNN_LINEAR", None)
    torch.manual_seed(0)
    for num_rows in (0, 1, 33):
        x, weight = torch.randn(12, num_rows, dtype=dtype).t(), torch.randn(5, 24, dtype=dtype)
        weight, bias = weight[:, ::2], torch.randn(5, dtype=dtype)
        expected = F.linear(x.double(), weight.double(), bias.double())
        # Twelve products of size one; bfloat16 keeps eight bits.
        tolerance = 0.1 if dtype == torch.bfloat16 else 1e-5
        product = linear(x, weight, bias)
        assert product.dtype == dtype
        torch.testing.assert_close(product.double(), expected, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(linear(x, weight), F.linear(x, weight), rtol=1e-5, atol=1e-5)


def test_onednn_is_there_in_an_ordinary_build_for_x86() -> None:
    if not torch._C._has_mkldnn:
        pytest.skip("this PyTorch has no oneDNN")
    assert products._ONEDNN_LINEAR is not None
