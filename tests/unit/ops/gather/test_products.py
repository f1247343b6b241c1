"""Products without gradients: the same numbers as `F.linear`, whatever the layout and the type."""

import pytest
import torch
import torch.nn.functional as F

from dyhead_det.ops.gather import products
from dyhead_det.ops.gather.products import FastLinear, linear


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


@pytest.mark.parametrize(
    "other",
    [
        products._SIGNATURE.replace("str? algorithm", "str? algorithm, int more"),
        products._SIGNATURE.replace("_linear_pointwise", "_linear_that_is_gone"),
        products._SIGNATURE.replace("mkldnn::", "mkldnn_that_is_gone::"),
    ],
)
def test_a_private_operator_with_another_signature_is_left_alone(other: str) -> None:
    assert products._find_onednn_linear(other) is None


def custom_nodes(out: torch.Tensor) -> bool:
    return "_Linear" in type(out.grad_fn).__name__


def test_only_a_cpu_that_has_the_operator_takes_our_own_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layer = FastLinear(24, 5)
    assert custom_nodes(layer(torch.randn(7, 24))) == (products._ONEDNN_LINEAR is not None)
    assert not custom_nodes(layer.to("meta")(torch.randn(7, 24, device="meta")))
    assert not custom_nodes(FastLinear(24, 5).double()(torch.randn(7, 24, dtype=torch.double)))
    monkeypatch.setattr(products, "_ONEDNN_LINEAR", None)
    assert not custom_nodes(FastLinear(24, 5)(torch.randn(7, 24)))


def test_the_layer_has_the_values_and_gradients_of_an_ordinary_one() -> None:
    torch.manual_seed(0)
    fast, plain = FastLinear(24, 5), torch.nn.Linear(24, 5)
    plain.load_state_dict(fast.state_dict())
    x = torch.randn(7, 24, requires_grad=True)
    results = []
    for layer in (fast, plain):
        out = layer(x)
        leaves = [x, *layer.parameters()]
        results.append((out, *torch.autograd.grad(out.square().sum(), leaves)))
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)


def test_the_layer_follows_autocast() -> None:
    layer = FastLinear(24, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(7, 24)).dtype == torch.bfloat16


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:FutureWarning")
def test_the_layer_is_traced_as_an_ordinary_one() -> None:
    traced = torch.jit.trace(FastLinear(24, 5), torch.randn(7, 24))
    assert "aten::linear" in str(traced.inlined_graph)
