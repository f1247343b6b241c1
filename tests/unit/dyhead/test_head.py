"""The DyHead stack: pyramids of all shapes, the residual start, initialization, precision."""

import doctest
import inspect
from collections import OrderedDict

import pytest
import torch
from torch import Tensor

from dyhead_det.config.schema import DyHeadConfig
from dyhead_det.dyhead import head, stacked
from dyhead_det.dyhead.head import DyHead
from dyhead_det.dyhead.stacked import StackedDyHead
from dyhead_det.models.backbones.pyramid import build_dyhead

RULES = ["resized", "flattened", "cropped"]
ALL = ("scale", "spatial", "task")
VARIANTS = [
    {"attention": ("scale",)},
    {"attention": ("spatial",)},
    {"attention": ("task",)},
    {"attention": ("task", "scale")},
    {"spatial": "conv"},
    {"dynamic_relu": "shared"},
]


def small_dyhead(
    backend: str = "auto", rule: str = "resized", num_blocks: int = 2, *, channels: int = 32,
    attention=ALL, spatial="deform", dynamic_relu="channel", zero_init_offsets=False,
    residual=False, residual_scale=0.0,
) -> DyHead:  # fmt: skip
    return DyHead(
        channels,
        num_blocks,
        attention=attention,
        spatial=spatial,
        dynamic_relu=dynamic_relu,
        coarse_offsets=rule,
        zero_init_offsets=zero_init_offsets,
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
@pytest.mark.parametrize("rule", RULES)
def test_every_level_keeps_its_shape(sizes: list[tuple[int, int]], rule: str) -> None:
    levels = pyramid(*sizes)
    out = small_dyhead(rule=rule)(levels)
    assert [x.shape for x in out] == [x.shape for x in levels]
    assert all(x.isfinite().all() for x in out)


@pytest.mark.parametrize("rule", RULES)
def test_a_batch_of_two_is_two_singles(rule: str) -> None:
    torch.manual_seed(0)
    dyhead = small_dyhead(rule=rule)
    levels = pyramid((9, 6), (5, 3), (3, 2))
    singles = [dyhead([x[image : image + 1] for x in levels]) for image in range(2)]
    for batched, first, second in zip(dyhead(levels), *singles, strict=True):
        torch.testing.assert_close(batched, torch.cat([first, second]), rtol=1e-4, atol=1e-5)


def test_an_empty_batch_gives_empty_maps_and_zero_gradients() -> None:
    dyhead = small_dyhead()
    out = dyhead(pyramid((8, 8), (4, 4), batch=0))
    assert [x.shape for x in out] == [(0, 32, 8, 8), (0, 32, 4, 4)]
    sum(x.sum() for x in out).backward()
    assert all(p.grad is None or not p.grad.any() for p in dyhead.parameters())


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ([], "at least one"),
        (pyramid((9, 9), (4, 5)), r"level 0 is .* needs \(2, 32, 5, 5\) for level 1"),
        ([*pyramid((8, 8)), *pyramid((4, 4), channels=16)], r"needs \(2, 32, 4, 4\)"),
        ([*pyramid((8, 8)), *pyramid((4, 4), batch=1)], r"needs \(2, 32, 4, 4\)"),
    ],
)
def test_maps_that_are_no_pyramid_are_refused(levels: list[Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_dyhead()(levels)


@pytest.mark.parametrize("module", [DyHead, StackedDyHead])
@pytest.mark.parametrize(
    "levels", [torch.rand(1, 32, 8, 8), [torch.rand(32, 8, 8)], pyramid((8, 8), channels=16)]
)
def test_a_map_of_another_form_is_told_with_the_form_that_is_needed(module, levels) -> None:
    with pytest.raises(ValueError, match=r"32 channels needs .* maps \(B, 32, H, W\), level 0 is"):
        module(32, 1)(levels)


@pytest.mark.parametrize("module", [DyHead, StackedDyHead])
@pytest.mark.parametrize("name", ["channels", "num_blocks"])
@pytest.mark.parametrize("value", [0, -16, 16.0, "16", True, None])
def test_what_is_no_number_of_channels_or_blocks_is_refused(module, name, value) -> None:
    with pytest.raises(ValueError, match=f"^{name} is a whole number from 1 on, not "):
        module(**{"channels": 32, "num_blocks": 1, name: value})


def test_channels_that_do_not_form_16_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="divisible by 16, got 24"):
        small_dyhead(channels=24)


def test_the_residual_start_leaves_the_pyramid_alone_where_its_scale_is_zero() -> None:
    dyhead = small_dyhead(residual=True, residual_scale=0.0)
    levels = pyramid((8, 6), (4, 3))
    for got, x in zip(dyhead(levels), levels, strict=True):
        assert torch.equal(got, x)


def test_the_residual_adds_the_scaled_change_per_channel() -> None:
    torch.manual_seed(0)
    plain = small_dyhead()
    residual = small_dyhead(residual=True, residual_scale=0.25)
    missing, _ = residual.load_state_dict(plain.state_dict(), strict=False)
    assert missing == ["residual_scale"]
    levels = pyramid((8, 6), (4, 3))
    for got, change, x in zip(residual(levels), plain(levels), levels, strict=True):
        torch.testing.assert_close(got, x + 0.25 * change)
    sum(x.square().sum() for x in residual(levels)).backward()
    assert residual.residual_scale.grad.shape == (32,)


def test_zero_init_zeroes_exactly_the_offset_convolution() -> None:
    dyhead = small_dyhead(num_blocks=1, zero_init_offsets=True)
    zeros = {name for name, value in dyhead.blocks[0].named_parameters() if not value.any()}
    assert zeros == {
        "offset_and_mask.weight", "offset_and_mask.bias", "scale.score.bias",
        *(f"{name}.{bias}" for name in ("same", "finer", "coarser") for bias in
          ("bias", "norm.bias")),
    }  # fmt: skip


def test_initialization_is_the_published_one() -> None:
    torch.manual_seed(0)
    block = small_dyhead().blocks[0]
    bound = 1 / (9 * 32) ** 0.5
    for weight in (block.same.weight, block.finer.weight, block.offset_and_mask.weight):
        assert bound * 0.98 < weight.abs().max() <= bound
    assert 0.005 < block.scale.score.weight.std() < 0.02


def test_parameters_at_256_channels_and_six_blocks_are_11_and_a_half_million() -> None:
    dyhead = small_dyhead(num_blocks=6, channels=256)
    # Per block: three kernels, offsets, three norms, score, two linear layers.
    per_block = (
        3 * (9 * 256 * 256 + 256) + (9 * 256 * 27 + 27) + 3 * 512 + 257
        + (256 * 64 + 64) + (64 * 1024 + 1024)
    )  # fmt: skip
    assert sum(p.numel() for p in dyhead.parameters()) == 6 * per_block == 11_503_656


@pytest.mark.parametrize("rule", RULES)
def test_it_works_under_bfloat16_autocast_with_gradients(rule: str) -> None:
    torch.manual_seed(0)
    dyhead = small_dyhead(rule=rule, num_blocks=1)
    levels = pyramid((16, 12), (8, 6), (4, 3))
    expected = dyhead(levels)
    with torch.autocast("cpu", torch.bfloat16):
        out = dyhead(levels)
    for got, wanted in zip(out, expected, strict=True):
        # Eight bits, amplified by the norms.
        assert (got.float() - wanted).abs().mean() < 0.02 * wanted.abs().mean()
    sum(x.float().sum() for x in out).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in dyhead.parameters())


def test_float64_stays_float64() -> None:
    out = small_dyhead().double()([x.double() for x in pyramid((4, 4), (2, 2))])
    assert {x.dtype for x in out} == {torch.double}


@pytest.mark.parametrize("backend", ["auto", "torchvision", "gather", "reference", "grid_sample"])
def test_every_backend_is_the_same_function(backend: str) -> None:
    torch.manual_seed(0)
    dyhead = small_dyhead("reference").double()
    levels = [x.double() for x in pyramid((9, 6), (5, 3), (3, 2))]
    expected = dyhead(levels)
    dyhead.deform_backend = backend
    for got, wanted in zip(dyhead(levels), expected, strict=True):
        torch.testing.assert_close(got, wanted)


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(ValueError, match="'cuda'; one of auto"):
        small_dyhead("cuda")


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_every_variant_keeps_shapes_and_learns_with_every_parameter(options: dict) -> None:
    torch.manual_seed(0)
    dyhead = small_dyhead(**options)
    levels = pyramid((9, 6), (5, 3), (3, 2))
    out = dyhead(levels)
    assert [x.shape for x in out] == [x.shape for x in levels]
    sum((x * torch.randn_like(x)).sum() for x in out).backward()
    assert all(parameter.grad.any() for parameter in dyhead.parameters())


@pytest.mark.parametrize(
    ("options", "modules"),
    [
        ({"attention": ("scale",)}, {"scale"}),
        ({"attention": ("task",)}, {"task"}),
        ({"attention": ("spatial",)}, {"offset_and_mask", "same", "finer", "coarser"}),
        ({"spatial": "conv"}, {"same", "finer", "coarser", "scale", "task"}),
    ],
)
def test_what_is_switched_off_has_no_parameters(options: dict, modules: set[str]) -> None:
    block = small_dyhead(**options).blocks[0]
    assert {name.split(".")[0] for name, _ in block.named_parameters()} == modules


@pytest.mark.parametrize(
    ("attention", "heard"),
    [
        (("task",), [False, False, True, False]),
        (("scale",), [False, True, True, True]),
        (("spatial",), [False, True, True, True]),
    ],
)
def test_scale_and_spatial_attention_read_the_neighbors(attention, heard: list[bool]) -> None:
    torch.manual_seed(0)
    levels = [x.requires_grad_() for x in pyramid((16, 16), (8, 8), (4, 4), (2, 2))]
    out = small_dyhead(num_blocks=1, attention=attention)(levels)[2]
    # A sum would be blind: the group norm fixes it.
    (out * torch.randn_like(out)).sum().backward()
    assert [x.grad is not None and bool(x.grad.any()) for x in levels] == heard


def test_scale_attention_alone_weighs_resized_neighbors_by_hand() -> None:
    dyhead = small_dyhead(num_blocks=1, attention=("scale",))
    torch.nn.init.zeros_(dyhead.blocks[0].scale.score.weight)  # all gates 1/2
    levels = [torch.full((1, 32, side, side), value) for side, value in ((4, 1.0), (2, 3.0))]
    fine, coarse = dyhead(levels)
    # Both levels see 1 and 3.
    torch.testing.assert_close(fine, torch.full_like(fine, 1.0))
    torch.testing.assert_close(coarse, torch.full_like(coarse, 1.0))


def test_a_plain_convolution_is_what_offsets_and_mask_logits_far_up_make() -> None:
    torch.manual_seed(0)
    plain, deform = small_dyhead(spatial="conv"), small_dyhead(zero_init_offsets=True)
    deform.load_state_dict(plain.state_dict(), strict=False)
    for block in deform.blocks:
        torch.nn.init.constant_(block.offset_and_mask.bias[18:].data, 50.0)  # sigmoid 1
    levels = pyramid((9, 6), (5, 3))
    for got, wanted in zip(plain(levels), deform(levels), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_the_configuration_builds_the_scheme_with_its_options() -> None:
    config = DyHeadConfig(num_blocks=2, attention=("scale", "spatial"), spatial="conv")
    dyhead = build_dyhead(config, 32)
    assert isinstance(dyhead, DyHead)
    modules = {name for name, _ in dyhead.blocks[1].named_children()}
    assert modules == {"same", "finer", "coarser", "scale"}
    shared = build_dyhead(DyHeadConfig(num_blocks=1, dynamic_relu="shared"), 32)
    assert shared.blocks[0].task.expand.out_features == 4


@pytest.mark.parametrize("module", [DyHead, StackedDyHead])
def test_the_defaults_are_those_of_the_configuration(module: type) -> None:
    parameters = inspect.signature(module).parameters
    fields = DyHeadConfig.model_fields
    here = {name: each.default for name, each in parameters.items() if name != "channels"}
    assert here == {name: fields[name].default for name in here}
    # `scheme` says which module; the stacked scheme has one offset for all levels.
    missing = {"scheme"} if module is DyHead else {"scheme", "coarse_offsets"}
    assert set(fields) - set(here) == missing
    kinds = [each.kind.name for each in parameters.values()]
    assert set(kinds[:2]) == {"POSITIONAL_OR_KEYWORD"}
    assert set(kinds[2:]) == {"KEYWORD_ONLY"}


@pytest.mark.parametrize("module", [DyHead, StackedDyHead])
def test_a_number_of_channels_is_enough(module: type) -> None:
    assert len(module(32).blocks) == 6
    assert len(module(32, 1).blocks) == len(module(32, num_blocks=1).blocks) == 1


@pytest.mark.parametrize("module", [DyHead, StackedDyHead])
@pytest.mark.parametrize("container", [dict, OrderedDict])
def test_a_dict_of_maps_comes_back_with_its_names_and_order(module: type, container: type) -> None:
    dyhead = module(32, 1)
    levels = pyramid((8, 6), (4, 3))
    named = container(zip(("p4", "p10"), levels, strict=True))  # not in alphabetical order
    out = dyhead(named)
    assert type(out) is container
    assert list(out) == ["p4", "p10"]
    assert all(map(torch.equal, out.values(), dyhead(levels)))
    assert list(named.values()) == levels  # the input is left alone
    assert isinstance(dyhead(tuple(levels)), list)


@pytest.mark.parametrize("module", [DyHead, StackedDyHead])
@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"attention": ("scale", "spacial")}, "attention is 'spacial'; one of scale, spatial, t"),
        ({"attention": ()}, "attention is empty; one or more of scale, spatial, task"),
        ({"spatial": "deformable"}, "spatial is 'deformable'; one of deform, conv"),
        ({"dynamic_relu": "b"}, "dynamic_relu is 'b'; one of channel, shared"),
        ({"deform_backend": "cuda"}, "deform backend 'cuda'; one of auto, torchvision"),
    ],
)
def test_an_option_that_does_not_exist_is_refused(module: type, option: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        module(32, 1, **option)


def test_an_offset_rule_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="coarse_offsets is 'resize'; one of resized, flattened"):
        DyHead(32, 1, coarse_offsets="resize")


@pytest.mark.parametrize("module", [DyHead, StackedDyHead])
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("backend", ["gather", "reference"])
def test_the_pyramid_stays_in_the_autocast_type(module: type, residual: bool, backend: str) -> None:
    dyhead = module(32, 1, residual=residual, deform_backend=backend)
    levels = [x.bfloat16().requires_grad_() for x in pyramid((8, 6), (4, 3))]
    with torch.autocast("cpu", torch.bfloat16):
        out = dyhead(levels)
    assert {x.dtype for x in out} == {torch.bfloat16}
    sum(x.float().square().sum() for x in out).backward()
    assert all(x.grad.isfinite().all() for x in levels)


@pytest.mark.parametrize("module", [head, stacked])
def test_the_examples_of_the_docstrings(module) -> None:
    failed, tried = doctest.testmod(module)
    assert tried > 4
    assert failed == 0
