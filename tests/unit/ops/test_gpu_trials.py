"""Trials of a backend, on a CPU: what is right, what is wrong, and what fails."""

import math

import pytest
import torch

from dyhead_det.ops.deform_conv import CONVOLUTIONS
from dyhead_det.ops.gpu_trials import Workload, find_problem, milliseconds

TORCHVISION, GATHER = CONVOLUTIONS["torchvision"], CONVOLUTIONS["gather"]


def workload(device: torch.device, dtype=torch.float32, *, has_backward=True) -> Workload:
    return Workload(device, dtype, False, 16, 64, has_backward)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_right_convolution_has_no_problem_in_any_type(dtype, device) -> None:
    assert find_problem(GATHER, TORCHVISION, workload(device, dtype)) is None


def test_one_wrong_number_of_the_output_is_found() -> None:
    def wrong(*operands, stride):
        out = GATHER(*operands, stride=stride)
        return torch.cat((out.flatten()[:-1], out.flatten()[-1:] + 1)).view_as(out)

    for has_backward in (True, False):
        problem = find_problem(
            wrong, TORCHVISION, workload(torch.device("cpu"), has_backward=has_backward)
        )
        assert problem.startswith("output differs by")


def test_each_wrong_gradient_is_found() -> None:
    def with_half_the_gradient_of(index):
        def convolve(*operands, stride):
            constant = operands[index].detach()
            half = (constant + operands[index]) / 2
            changed = (*operands[:index], half, *operands[index + 1 :])
            return GATHER(*changed, stride=stride)

        return convolve

    names = ("gradient of x", "of offsets", "of masks", "of weight", "of bias")
    for index, name in enumerate(names):
        wrong = with_half_the_gradient_of(index)
        problem = find_problem(wrong, TORCHVISION, workload(torch.device("cpu")))
        assert problem.startswith(f"{name} differs by 0.5")


def test_what_is_not_a_number_is_wrong() -> None:
    def undefined(*operands, stride):
        return GATHER(*operands, stride=stride) * math.nan

    problem = find_problem(undefined, TORCHVISION, workload(torch.device("cpu")))
    assert problem.startswith("output differs by nan")


def test_a_convolution_that_fails_is_a_problem_and_takes_forever() -> None:
    def failing(*operands, stride):
        raise RuntimeError("no compiler\nfor many reasons")

    here = workload(torch.device("cpu"))
    assert find_problem(failing, TORCHVISION, here) == "RuntimeError: no compiler"
    assert milliseconds(failing, here) == math.inf


def test_the_callers_state_is_left_outside(device) -> None:
    def refuse(_):
        raise AssertionError("a hook of the caller was asked")

    state = torch.get_rng_state()
    with (
        torch.inference_mode(),
        torch.autocast(device.type, torch.bfloat16),
        torch.autograd.graph.saved_tensors_hooks(refuse, refuse),
    ):
        assert find_problem(GATHER, TORCHVISION, workload(device)) is None
        assert 0 < milliseconds(GATHER, workload(device)) < math.inf
        assert 0 < milliseconds(GATHER, workload(device, has_backward=False)) < math.inf
    assert torch.equal(torch.get_rng_state(), state)


def test_a_workload_is_about_that_of_the_maps() -> None:
    of_maps = Workload.of(torch.empty(2, 8, 100, 150), torch.bfloat16)
    assert (of_maps.num_locations, of_maps.channels, of_maps.has_backward) == (2**15, 8, True)
    with torch.no_grad():
        huge = Workload.of(torch.empty(64, 1, 800, 1000), torch.float32)
    assert (huge.num_locations, huge.has_backward) == (2**17, False)
