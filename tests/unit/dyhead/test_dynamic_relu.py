"""The dynamic ReLU's coefficients, ranges and values by hand."""

import torch

from dyhead_det.dyhead.dynamic_relu import DynamicReLU


def zeroed(channels: int) -> DynamicReLU:
    relu = DynamicReLU(channels, reduction=4, coefficients_of="channel")
    for parameter in relu.parameters():
        torch.nn.init.zeros_(parameter)
    return relu


def test_at_rest_it_is_the_identity_above_zero_and_zero_below() -> None:
    # All hard sigmoids are 1/2: slopes 1 and 0, shifts 0.
    x = torch.tensor([-2.0, -0.5, 0.0, 3.0]).view(1, 4, 1, 1)
    torch.testing.assert_close(zeroed(4)(x), x.clamp(min=0))


def test_coefficients_come_in_the_order_slope_shift_slope_shift() -> None:
    relu = zeroed(4)
    # hardsigmoid(1.5, 0.75, -1.5, 3) = 3/4, 5/8, 1/4, 1 for the four channels of each kind.
    with torch.no_grad():
        relu.expand.bias.copy_(torch.tensor([1.5, 0.75, -1.5, 3.0]).repeat_interleave(4))
    coefficients = relu.coefficients(torch.zeros(2, 4))
    expected = [2 * 3 / 4, 5 / 8 - 1 / 2, 2 * 1 / 4 - 1, 1 - 1 / 2]
    for coefficient, value in zip(coefficients, expected, strict=True):
        torch.testing.assert_close(coefficient, torch.full((2, 4), value))


def test_value_of_both_pieces_by_hand() -> None:
    relu = zeroed(4)
    with torch.no_grad():
        relu.expand.bias.copy_(torch.tensor([1.5, 0.75, -1.5, 3.0]).repeat_interleave(4))
    x = torch.tensor([-2.0, 1.0]).view(1, 1, 1, 2).expand(1, 4, 1, 2)
    # max(1.5 x + 0.125, -0.5 x + 0.5) at -2 and at 1.
    torch.testing.assert_close(relu(x), torch.tensor([1.5, 1.625]).view(1, 1, 1, 2).expand_as(x))


def test_coefficients_stay_in_their_ranges() -> None:
    relu = DynamicReLU(8, reduction=4, coefficients_of="channel")
    slope_1, shift_1, slope_2, shift_2 = relu.coefficients(1000 * torch.randn(50, 8))
    for value, low, high in ((slope_1, 0, 2), (shift_1, -0.5, 0.5), (slope_2, -1, 1)):
        assert low <= value.min() < value.max() <= high
    assert -0.5 <= shift_2.min() < shift_2.max() <= 0.5


def test_the_image_decides_for_itself() -> None:
    torch.manual_seed(0)
    relu = DynamicReLU(8, reduction=4, coefficients_of="channel")
    x = torch.randn(2, 8, 3, 5)
    singles = torch.cat([relu(x[:1]), relu(x[1:])])
    torch.testing.assert_close(relu(x), singles)
    assert not torch.allclose(relu(x.roll(1, 0)[:1] + 5), relu(x[1:]) + 5)


def test_more_channels_than_the_reduction_are_not_needed_to_be_divisible() -> None:
    assert DynamicReLU(6, reduction=4, coefficients_of="channel")(
        torch.randn(1, 6, 2, 2)
    ).shape == (1, 6, 2, 2)


def test_shared_coefficients_are_the_same_for_all_channels_but_not_for_all_images() -> None:
    relu = DynamicReLU(8, reduction=4, coefficients_of="shared")
    assert relu.expand.out_features == 4
    coefficients = relu.coefficients(torch.randn(2, 8))
    for coefficient in coefficients:
        assert torch.equal(coefficient, coefficient[:, :1].expand(2, 8))
        assert not torch.equal(coefficient[0], coefficient[1])
