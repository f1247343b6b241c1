"""The fast DyHead equals the readable one: values, all gradients, every rule and every shape."""

import copy
import statistics

import pytest
import torch
from torch import Tensor

from dyhead_det.dyhead import fused_passes
from dyhead_det.dyhead.head import DyHead
from dyhead_det.dyhead.pyramid_layout import build_layout
from dyhead_det.ops.gather import deform_conv as gather
from dyhead_det.ops.gather import parallel

pytestmark = pytest.mark.usefixtures("on_device")

RULES = ["resized", "flattened", "cropped"]
PYRAMID = [(25, 17), (13, 9), (7, 5), (4, 3), (2, 2), (1, 1)]


def lively_dyhead(
    rule: str, *, num_blocks: int = 2, channels: int = 32, dynamic_relu: str = "channel"
) -> DyHead:
    """A DyHead whose offsets leave the map and whose gates, norms and scales are not at rest."""
    dyhead = DyHead(
        channels,
        num_blocks,
        attention=("scale", "spatial", "task"),
        spatial="deform",
        dynamic_relu=dynamic_relu,
        coarse_offsets=rule,
        zero_init_offsets=False,
        residual=False,
        residual_scale=0.0,
        deform_backend="gather",
    )
    with torch.no_grad():
        for name, parameter in dyhead.named_parameters():
            spread = 0.3 if "offset" in name or "norm" in name or "scale" in name else 0.03
            parameter.add_(spread * torch.randn_like(parameter))
    return dyhead


def random_pyramid(
    sizes: list[tuple[int, int]], *, batch: int = 2, channels: int = 32, dtype: torch.dtype
) -> list[Tensor]:
    return [torch.randn(batch, channels, *size, dtype=dtype, requires_grad=True) for size in sizes]


def values_and_gradients(
    dyhead: DyHead, levels: list[Tensor], backend: str
) -> tuple[list[Tensor], dict[str, Tensor]]:
    dyhead.deform_backend = backend
    outputs = dyhead(levels)
    torch.manual_seed(1)
    probes = [torch.randn(x.shape).to(x.dtype) for x in outputs]
    leaves = {f"level {number}": x for number, x in enumerate(levels)}
    leaves |= dict(dyhead.named_parameters())
    gradients = torch.autograd.grad(
        outputs, list(leaves.values()), probes, materialize_grads=True, allow_unused=True
    )
    return outputs, dict(zip(leaves, gradients, strict=True))


def relative_error(got: Tensor, wanted: Tensor) -> float:
    """Mean deviation over mean size: unmoved by the few pixels where the maximum changes sides."""
    return ((got - wanted).abs().mean() / wanted.abs().mean().clamp(min=1e-3)).item()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("sizes", [PYRAMID, [(9, 7)], [(3, 8), (2, 4)], [(1, 1), (1, 1)]])
def test_float64_values_and_all_gradients(rule: str, sizes: list[tuple[int, int]]) -> None:
    torch.manual_seed(0)
    dyhead = lively_dyhead(rule).double()
    levels = random_pyramid(sizes, dtype=torch.double)
    outputs, gradients = values_and_gradients(dyhead, levels, "gather")
    expected, expected_gradients = values_and_gradients(dyhead, levels, "reference")
    torch.testing.assert_close(outputs, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-9, atol=1e-9)


def test_shared_coefficients_in_float64() -> None:
    torch.manual_seed(0)
    dyhead = lively_dyhead("resized", dynamic_relu="shared").double()
    levels = random_pyramid([(5, 4), (3, 2)], dtype=torch.double)
    outputs, gradients = values_and_gradients(dyhead, levels, "gather")
    expected, expected_gradients = values_and_gradients(dyhead, levels, "reference")
    torch.testing.assert_close(outputs, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("rule", RULES)
def test_float32_values_to_1e_5_and_gradients_to_1e_4(rule: str) -> None:
    # One of some 100,000 maxima with equal sides is enough to move gradients by a part in a
    # thousand, in either backend; of a few draws, most have none.
    drawn = [float32_errors(rule, seed) for seed in range(5)]
    assert max(value_error for value_error, _ in drawn) < 1e-5
    assert statistics.median(gradient_error for _, gradient_error in drawn) < 1e-4, drawn


def float32_errors(rule: str, seed: int) -> tuple[float, float]:
    """Return the largest relative errors of values and of gradients against torchvision's."""
    torch.manual_seed(seed)
    dyhead = lively_dyhead(rule, num_blocks=1, channels=64)
    block = dyhead.blocks[0]
    with torch.no_grad():  # far from the other kinks: whole coordinates, both sides of a ReLU
        block.offset_and_mask.weight.mul_(0.01)
        block.offset_and_mask.bias[:18] = 0.5
        block.scale.score.weight.mul_(0.1)
        block.scale.score.bias.fill_(1.0)
        block.task.squeeze.bias.fill_(2.0)
    levels = random_pyramid([(40, 36), (20, 18), (10, 9)], channels=64, dtype=torch.float32)
    outputs, gradients = values_and_gradients(dyhead, levels, "gather")
    expected, expected_gradients = values_and_gradients(dyhead, levels, "torchvision")
    # A bias in front of a norm hardly matters; its gradient is what cancellation leaves.
    biases = {f"blocks.0.{name}.bias" for name in ("same", "finer", "coarser")}
    return max(map(relative_error, outputs, expected)), max(
        relative_error(gradients[name], expected_gradients[name])
        for name in gradients.keys() - biases
    )


def test_gradcheck_of_the_whole_block(device: torch.device) -> None:
    torch.manual_seed(0)
    dyhead = lively_dyhead("resized", num_blocks=1, channels=16).double()
    parameters = dict(dyhead.named_parameters())
    levels = random_pyramid([(4, 3), (2, 2)], batch=1, channels=16, dtype=torch.double)

    def attend(*inputs: Tensor) -> tuple[Tensor, ...]:
        swapped = dict(zip(parameters, inputs[2:], strict=True))
        return tuple(torch.func.functional_call(dyhead, swapped, (list(inputs[:2]),)))

    inputs = (*levels, *parameters.values())
    # A GPU adds in any order.
    nondet_tol = 0.0 if device.type == "cpu" else 1e-12
    torch.autograd.gradcheck(attend, inputs, fast_mode=True, atol=1e-4, nondet_tol=nondet_tol)


@pytest.mark.parametrize("size", [1, 7, 100])
def test_results_do_not_depend_on_the_chunks(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "MIN_NUMBERS", 0)
    torch.manual_seed(0)
    dyhead = lively_dyhead("resized", num_blocks=1).double()
    levels = random_pyramid([(11, 6), (6, 3)], dtype=torch.double)
    expected, expected_gradients = values_and_gradients(dyhead, levels, "gather")
    monkeypatch.setattr(gather, "CPU_CHUNK_NUMBERS", 32 * size)
    monkeypatch.setattr(fused_passes, "CPU_CHUNK_NUMBERS", 64 * size)
    outputs, gradients = values_and_gradients(dyhead, levels, "gather")
    torch.testing.assert_close(outputs, expected)
    torch.testing.assert_close(gradients, expected_gradients)


@pytest.mark.filterwarnings("ignore:.*deterministic")
@pytest.mark.usefixtures("equal_bits")
@pytest.mark.parametrize("num_threads", [1, 3])
def test_equal_inputs_give_equal_bits(num_threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "MIN_NUMBERS", 0)
    monkeypatch.setattr(gather, "CPU_CHUNK_NUMBERS", 32 * 10)  # many chunks
    monkeypatch.setattr(fused_passes, "CPU_CHUNK_NUMBERS", 64 * 10)
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    torch.manual_seed(0)
    dyhead = lively_dyhead("flattened")
    levels = random_pyramid(PYRAMID, dtype=torch.float32)
    outputs, gradients = values_and_gradients(dyhead, levels, "gather")
    again, gradients_again = values_and_gradients(dyhead, levels, "gather")
    assert all(map(torch.equal, outputs, again))
    assert all(torch.equal(gradients[name], gradients_again[name]) for name in gradients)
    torch.set_num_threads(before)


def test_a_ramp_far_from_zero_keeps_its_variance(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Mean 1000 and spread 1: the difference of mean squares would lose four of seven digits.
    torch.manual_seed(0)
    layout = build_layout(2, ((100, 50),), device, torch.float32)
    features = 1000 + torch.randn(10_000, 3)
    monkeypatch.setattr(
        fused_passes, "CPU_CHUNK_NUMBERS", 6 * 1024
    )  # five chunks, the last smaller
    _, mean, variance, _ = fused_passes.Moments.apply(features, layout)
    maps = features.view(2, 5000, 3).double()
    exact_variance, exact_mean = torch.var_mean(maps, dim=1, correction=0)
    torch.testing.assert_close(mean[0].double(), exact_mean, rtol=1e-6, atol=0)
    torch.testing.assert_close(variance[0].double(), exact_variance, rtol=1e-4, atol=0)


def test_any_memory_layout_and_double_use_of_a_map() -> None:
    torch.manual_seed(0)
    dyhead = lively_dyhead("resized", num_blocks=1).double()
    fine = torch.randn(2, 32, 6, 4, dtype=torch.double, requires_grad=True)
    results = []
    for backend in ("gather", "reference"):
        dyhead.deform_backend = backend
        # Strided, reversed in memory, and the coarse map is made of the fine one.
        levels = [fine.transpose(0, 1).contiguous().transpose(0, 1), fine[:, :, ::2, ::2]]
        outputs = dyhead(levels)
        loss = sum((x * x).sum() for x in [*outputs, *dyhead([fine])])
        results.append((loss, *torch.autograd.grad(loss, fine)))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_training_follows_an_inference_of_the_same_size(mode: type) -> None:
    torch.manual_seed(0)
    dyhead = lively_dyhead("resized")
    levels = random_pyramid([(8, 6), (4, 3)], dtype=torch.float32)
    with mode():
        quiet = dyhead(levels)
    outputs, gradients = values_and_gradients(dyhead, levels, "gather")
    torch.testing.assert_close([x.clone() for x in quiet], outputs)
    assert all(gradient.isfinite().all() for gradient in gradients.values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_autocast_is_near_float32(dtype: torch.dtype, device: torch.device) -> None:
    torch.manual_seed(0)
    dyhead = lively_dyhead("resized", num_blocks=1)
    levels = random_pyramid([(16, 12), (8, 6), (4, 3)], dtype=torch.float32)
    expected, expected_gradients = values_and_gradients(dyhead, levels, "gather")
    with torch.autocast(device.type, dtype):
        outputs, gradients = values_and_gradients(dyhead, levels, "gather")
    assert {x.dtype for x in outputs} == {torch.float32}
    assert {x.dtype for x in gradients.values()} == {torch.float32}
    # Eight bits of mantissa; offsets in error move every sample, so gradients see it twice.
    assert max(map(relative_error, outputs, expected)) < 0.05
    kernel = "blocks.0.same.weight"
    assert relative_error(gradients[kernel], expected_gradients[kernel]) < 0.2


@pytest.mark.parametrize("num_frozen", [1, 2])
def test_frozen_blocks_before_trained_ones(num_frozen: int) -> None:
    torch.manual_seed(0)
    dyhead = lively_dyhead("resized", num_blocks=3).double()
    dyhead.blocks[:num_frozen].requires_grad_(False)
    trained = dict(dyhead.blocks[num_frozen:].named_parameters())
    levels = [x.detach() for x in random_pyramid([(6, 4), (3, 2)], dtype=torch.double)]
    gradients = []
    for backend in ("gather", "reference"):
        dyhead.deform_backend = backend
        loss = sum(x.square().sum() for x in dyhead(levels))
        gradients.append(torch.autograd.grad(loss, list(trained.values())))
    torch.testing.assert_close(*gradients)


@pytest.mark.filterwarnings("ignore:.*deterministic")
@pytest.mark.usefixtures("equal_bits")
def test_backward_twice_with_the_graph_kept_and_asked_to_be_differentiable() -> None:
    torch.manual_seed(0)
    dyhead = lively_dyhead("resized").double()
    levels = random_pyramid([(6, 4), (3, 2)], dtype=torch.double)
    loss = sum(x.square().sum() for x in dyhead(levels))
    first = torch.autograd.grad(loss, levels, retain_graph=True)
    second = torch.autograd.grad(loss, levels, create_graph=True)
    torch.testing.assert_close(second, first, rtol=0, atol=0)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        second[0].sum().backward()


def test_half_precision_modules_and_maps_work() -> None:
    torch.manual_seed(0)
    dyhead = lively_dyhead("resized", num_blocks=1)
    levels = random_pyramid([(16, 12), (8, 6)], dtype=torch.float32)
    expected = dyhead(levels)
    outputs = copy.deepcopy(dyhead).bfloat16()([x.bfloat16() for x in levels])
    assert {x.dtype for x in outputs} == {torch.bfloat16}
    assert max(relative_error(a.float(), b) for a, b in zip(outputs, expected, strict=True)) < 0.1


def test_a_step_with_every_parameter_as_distributed_training_needs_it() -> None:
    # DistributedDataParallel waits for the gradient of every parameter that requires one.
    dyhead = lively_dyhead("resized")
    for sizes in ([(6, 4)], [(6, 4), (3, 2)]):
        dyhead.zero_grad()
        sum(x.sum() for x in dyhead(random_pyramid(sizes, dtype=torch.float32))).backward()
        assert all(parameter.grad is not None for parameter in dyhead.parameters())
