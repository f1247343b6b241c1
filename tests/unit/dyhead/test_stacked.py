"""The paper's tensor: pyramids of all shapes, the way there and back, what each option switches."""

import pytest
import torch
from torch import Tensor

from dyhead_det.config.schema import DyHeadConfig
from dyhead_det.dyhead.stacked import (
    StackedDyHead,
    change_level,
    median_level,
    split_levels,
    stack_levels,
)
from dyhead_det.models.backbones.pyramid import build_dyhead

ALL = ("scale", "spatial", "task")


def small_dyhead(
    num_blocks: int = 2, *, attention=ALL, spatial="deform", dynamic_relu="channel", residual=False,
    residual_scale=0.0, backend="auto",
) -> StackedDyHead:  # fmt: skip
    return StackedDyHead(
        32,
        num_blocks,
        attention=attention,
        spatial=spatial,
        dynamic_relu=dynamic_relu,
        zero_init_offsets=False,
        residual=residual,
        residual_scale=residual_scale,
        deform_backend=backend,
    )


def pyramid(*sizes: tuple[int, int], batch: int = 2, channels: int = 32) -> list[Tensor]:
    return [torch.randn(batch, channels, *size) for size in sizes]


@pytest.mark.parametrize(
    "sizes",
    [
        [(8, 12)],
        [(8, 12), (4, 6)],
        [(25, 17), (13, 9), (7, 5), (4, 3), (2, 2), (1, 1)],
        [(1, 1), (1, 1), (1, 1)],
    ],
)
def test_every_level_keeps_its_shape(sizes: list[tuple[int, int]]) -> None:
    levels = pyramid(*sizes)
    out = small_dyhead()(levels)
    assert [x.shape for x in out] == [x.shape for x in levels]
    assert all(x.isfinite().all() for x in out)


@pytest.mark.parametrize("spatial", ["deform", "conv"])
def test_a_batch_of_two_is_two_singles(spatial: str) -> None:
    torch.manual_seed(0)
    dyhead = small_dyhead(spatial=spatial)
    levels = pyramid((9, 6), (5, 3), (3, 2), (2, 1))
    singles = [dyhead([x[image : image + 1] for x in levels]) for image in range(2)]
    for batched, first, second in zip(dyhead(levels), *singles, strict=True):
        torch.testing.assert_close(batched, torch.cat([first, second]), rtol=1e-4, atol=1e-5)


def test_an_empty_batch_gives_empty_maps_and_zero_gradients() -> None:
    dyhead = small_dyhead()
    out = dyhead(pyramid((8, 8), (4, 4), batch=0))
    assert [x.shape for x in out] == [(0, 32, 8, 8), (0, 32, 4, 4)]
    sum(x.sum() for x in out).backward()
    assert all(p.grad is None or not p.grad.any() for p in dyhead.parameters())


def test_bfloat16_autocast_stays_near_float32() -> None:
    torch.manual_seed(0)
    dyhead = small_dyhead(residual=True, residual_scale=1.0)
    levels = pyramid((16, 12), (8, 6), (4, 3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = dyhead(levels)
        sum(x.float().square().mean() for x in low).backward()
    for got, wanted in zip(low, dyhead(levels), strict=True):
        # bfloat16 keeps 8 bits; the blocks' results are of size 1.
        torch.testing.assert_close(got.float(), wanted, rtol=0.05, atol=0.15)
    assert all(p.grad.isfinite().all() for p in dyhead.parameters())


def test_maps_that_are_no_pyramid_are_refused() -> None:
    with pytest.raises(ValueError, match=r"needs \(2, 32, 5, 5\) for level 1"):
        small_dyhead()(pyramid((9, 9), (4, 5)))


def test_the_median_of_an_even_number_is_the_finer_one() -> None:
    assert [median_level(n) for n in (1, 2, 3, 4, 5)] == [0, 0, 1, 1, 2]


def test_a_step_up_averages_what_is_there() -> None:
    x = torch.tensor([[1.0, 3.0, 5.0], [5.0, 7.0, 9.0], [2.0, 4.0, 6.0]])[None, None]
    got = change_level(x, num_steps=1, size_hw=(2, 2))
    # Four pixels, two at the borders, one in the corner.
    assert got[0, 0].tolist() == [[4.0, 7.0], [3.0, 6.0]]


def test_a_step_down_keeps_the_middle_of_a_ramp_in_place() -> None:
    x = torch.tensor([[0.0, 4.0]])[None, None]
    got = change_level(x, num_steps=-1, size_hw=(2, 4))
    # Centers of the fine pixels in coarse ones: -0.25 (clamped), 0.25, 0.75 and 1.25 (clamped).
    assert got[0, 0].tolist() == [[0.0, 1.0, 3.0, 4.0]] * 2


def test_constant_maps_survive_the_way_there_and_back() -> None:
    sizes = [(11, 7), (6, 4), (3, 2), (2, 1), (1, 1)]
    levels = [torch.full((1, 4, *size), float(level)) for level, size in enumerate(sizes)]
    stacked = stack_levels(levels)
    assert stacked.shape == (1, 5, 4, 3, 2)
    for got, x in zip(split_levels(stacked, sizes), levels, strict=True):
        torch.testing.assert_close(got, x)


def test_nothing_is_added_where_the_residual_scale_is_zero() -> None:
    levels = pyramid((8, 6), (4, 3))
    dyhead = small_dyhead(residual=True, residual_scale=0.0)
    for got, x in zip(dyhead(levels), levels, strict=True):
        assert torch.equal(got, x)


def test_the_change_is_added_scaled_per_channel_or_as_it_is() -> None:
    torch.manual_seed(0)
    plain = small_dyhead()
    scaled = small_dyhead(residual=True, residual_scale=0.25)
    missing, _ = scaled.load_state_dict(plain.state_dict(), strict=False)
    assert missing == ["residual_scale"]
    levels = pyramid((8, 6), (4, 3))
    for got, added, x in zip(scaled(levels), plain(levels), levels, strict=True):
        torch.testing.assert_close(got - x, 0.25 * (added - x), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kept", [("scale",), ("spatial",), ("task",), ("task", "scale")])
def test_attention_that_is_switched_off_has_no_parameters(kept: tuple[str, ...]) -> None:
    block = small_dyhead(1, attention=kept).blocks[0]
    assert {name.split(".")[0] for name, _ in block.named_parameters()} == set(kept)


@pytest.mark.parametrize("dynamic_relu", ["channel", "shared"])
@pytest.mark.parametrize("spatial", ["deform", "conv"])
def test_every_parameter_learns(spatial: str, dynamic_relu: str) -> None:
    torch.manual_seed(0)
    dyhead = small_dyhead(
        spatial=spatial, dynamic_relu=dynamic_relu, residual=True, residual_scale=0.01
    )
    out = dyhead(pyramid((9, 6), (5, 3), (3, 2)))
    sum((x * torch.randn_like(x)).sum() for x in out).backward()
    assert all(parameter.grad.any() for parameter in dyhead.parameters())


def test_the_number_of_parameters_does_not_depend_on_the_levels_but_the_output_does() -> None:
    dyhead = small_dyhead(1)
    levels = pyramid((16, 16), (8, 8), (4, 4), (2, 2))
    assert len(dyhead(levels)) == 4
    assert len(dyhead(levels[1:])) == 3


def test_a_level_hears_its_neighbors_and_no_other() -> None:
    torch.manual_seed(0)
    dyhead = small_dyhead(1, attention=("spatial",), spatial="conv")
    levels = [x.requires_grad_() for x in pyramid((16, 16), (8, 8), (4, 4), (2, 2))]
    # A sum would be blind: the group norm fixes it.
    (dyhead(levels)[3] * torch.randn(2, 32, 2, 2)).sum().backward()
    assert [x.grad is not None and bool(x.grad.any()) for x in levels] == [False, False, True, True]


def test_shared_coefficients_treat_all_channels_alike() -> None:
    torch.manual_seed(0)
    dyhead = small_dyhead(1, attention=("task",), dynamic_relu="shared")
    x = torch.randn(1, 1, 4, 4).expand(1, 32, 4, 4)
    out = dyhead([x])[0]
    torch.testing.assert_close(out, out[:, :1].expand_as(out))


def test_the_configuration_builds_the_scheme_with_its_options() -> None:
    config = DyHeadConfig(
        scheme="stacked", num_blocks=2, attention=("scale", "task"), dynamic_relu="shared"
    )
    dyhead = build_dyhead(config, 32)
    assert isinstance(dyhead, StackedDyHead)
    assert dyhead.blocks[0].spatial is None
    assert dyhead.blocks[0].task.expand.out_features == 4
    assert torch.equal(dyhead.residual_scale, torch.ones(32))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"attention": ()}, r"attention: one or more of .* `dyhead: null` leaves out all"),
        ({"attention": ("scale", "scale")}, r"none twice, got \['scale', 'scale'\]"),
        ({"scheme": "stacked", "coarse_offsets": "cropped"}, "cropped is a rule of"),
    ],
)
def test_settings_that_cannot_be_honored_are_refused(keys: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DyHeadConfig(**keys)
