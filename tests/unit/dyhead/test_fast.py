"""What the fast DyHead keeps for backward, and that this is safe; its layout is the module's."""

import copy
import gc
import pickle
import weakref

import pytest
import torch
from torch import Tensor

from dyhead_det.dyhead import fast
from dyhead_det.dyhead.head import DyHead

SIZES = [(6, 4), (3, 2)]


def dyhead_in_float64(num_blocks: int = 3) -> DyHead:
    return DyHead(32, num_blocks, zero_init_offsets=False, residual=False).double()


def pyramid(batch: int = 2) -> list[Tensor]:
    return [torch.randn(batch, 32, *size, dtype=torch.double, requires_grad=True) for size in SIZES]


def loss_of(maps: list[Tensor]) -> Tensor:
    return sum(x.square().sum() for x in maps)


def by_the_formula(dyhead: DyHead, levels: list[Tensor], leaves: list[Tensor]) -> list[Tensor]:
    """The gradients of the readable block."""
    readable = copy.deepcopy(dyhead)
    readable.deform_backend = "reference"
    twins = dict(zip(dyhead.parameters(), readable.parameters(), strict=True))
    loss = loss_of(readable(levels))
    return list(torch.autograd.grad(loss, [twins.get(leaf, leaf) for leaf in leaves]))


def nodes_of(out: Tensor) -> dict[str, list[torch.autograd.graph.Node]]:
    """All nodes of the graph by their class's name."""
    by_name: dict[str, list[torch.autograd.graph.Node]] = {}
    seen, pending = set(), [out.grad_fn]
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        by_name.setdefault(type(node).__name__, []).append(node)
        pending += [following for following, _ in node.next_functions]
    return by_name


@pytest.mark.parametrize("name", ["MomentsBackward", "CombineBackward", "_GatherConvBackward"])
def test_a_hook_sees_gradients_that_nobody_writes_into_afterwards(name: str) -> None:
    loss = loss_of(dyhead_in_float64()(pyramid()))
    seen: list[tuple[Tensor, Tensor]] = []

    def watch(gradients: tuple[Tensor | None, ...]) -> None:
        seen.extend((each, each.clone()) for each in gradients if each is not None)

    nodes = nodes_of(loss)[name]
    assert len(nodes) == 3
    for node in nodes:
        node.register_prehook(watch)
        node.register_hook(lambda to_inputs, _: watch(to_inputs))
    loss.backward()
    assert len(seen) > 3
    assert all(torch.equal(now, then) for now, then in seen)


def test_a_hook_may_change_a_gradient() -> None:
    # Twice the gradient behind the last block is twice the gradient of all that is before it.
    dyhead, levels = dyhead_in_float64(), pyramid()
    expected = by_the_formula(dyhead, levels, levels)
    loss = loss_of(dyhead(levels))
    # Of the three, the last block's is met first.
    nodes_of(loss)["CombineBackward"][0].register_prehook(lambda grads: (2 * grads[0],))
    for got, wanted in zip(torch.autograd.grad(loss, levels), expected, strict=True):
        torch.testing.assert_close(got, 2 * wanted)


def test_a_retained_graph_gives_the_same_gradients_again_and_again() -> None:
    dyhead, levels = dyhead_in_float64(), pyramid()
    leaves = [*levels, *dyhead.parameters()]
    loss = loss_of(dyhead(levels))
    first, second = (torch.autograd.grad(loss, leaves, retain_graph=True) for _ in range(2))
    third = torch.autograd.grad(loss, leaves)
    torch.testing.assert_close(first, tuple(by_the_formula(dyhead, levels, leaves)))
    assert all(map(torch.equal, first, second))
    assert all(map(torch.equal, first, third))


def test_a_freed_graph_is_refused_as_ever() -> None:
    levels = pyramid()
    loss = loss_of(dyhead_in_float64()(levels))
    torch.autograd.grad(loss, levels)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, levels)


@pytest.mark.parametrize("block", [0, 1, 2])
@pytest.mark.parametrize("name", ["offset_and_mask.weight", "same.weight", "task.expand.bias"])
def test_a_partial_backward_gives_the_gradient_it_was_asked_for(block: int, name: str) -> None:
    dyhead, levels = dyhead_in_float64(), pyramid()
    leaf = dyhead.blocks[block].get_parameter(name)
    got = torch.autograd.grad(loss_of(dyhead(levels)), [leaf])
    torch.testing.assert_close(list(got), by_the_formula(dyhead, levels, [leaf]))


def test_partial_backwards_one_after_the_other_give_the_whole() -> None:
    dyhead, levels = dyhead_in_float64(), pyramid()
    leaves = [*levels, *(block.same.weight for block in dyhead.blocks)]
    loss = loss_of(dyhead(levels))
    # From the back: each passes the kept results of more blocks than the one before.
    got = [torch.autograd.grad(loss, [leaf], retain_graph=True)[0] for leaf in reversed(leaves)]
    torch.testing.assert_close(got[::-1], by_the_formula(dyhead, levels, leaves))


@pytest.mark.parametrize("frozen", ["offset_and_mask", "same", "norm", "scale", "task", "weight"])
def test_frozen_parameters_change_no_other_gradient(frozen: str) -> None:
    dyhead, levels = dyhead_in_float64(2), pyramid()
    for name, parameter in dyhead.named_parameters():
        parameter.requires_grad_(frozen not in name)
    leaves = [*levels, *(each for each in dyhead.parameters() if each.requires_grad)]
    got = torch.autograd.grad(loss_of(dyhead(levels)), leaves)
    torch.testing.assert_close(list(got), by_the_formula(dyhead, levels, leaves))


def test_a_frozen_block_in_the_middle_passes_the_gradient_on() -> None:
    dyhead, levels = dyhead_in_float64(), pyramid()
    dyhead.blocks[1].requires_grad_(False)
    got = torch.autograd.grad(loss_of(dyhead(levels)), levels)
    torch.testing.assert_close(list(got), by_the_formula(dyhead, levels, levels))


def test_results_of_blocks_but_the_last_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[weakref.ref[torch.UntypedStorage]] = []
    combine = fast.Combine.apply

    def remember(*arguments: object) -> Tensor:
        features = combine(*arguments)
        kept.append(weakref.ref(features.untyped_storage()))
        return features

    monkeypatch.setattr(fast.Combine, "apply", remember)
    out = dyhead_in_float64()(pyramid())
    gc.collect()
    assert [each() is None for each in kept] == [True, True, False]
    loss_of(out).backward()


def test_the_layout_is_made_once_for_batches_of_one_size() -> None:
    dyhead = dyhead_in_float64()
    dyhead(pyramid())
    layout = dyhead._layouts._latest
    dyhead(pyramid())
    assert dyhead._layouts._latest is layout
    dyhead(pyramid(batch=1))
    assert dyhead._layouts._latest is not layout
    assert dyhead_in_float64()._layouts._latest is None  # each module has its own


@pytest.mark.parametrize(
    "copy_of", [copy.copy, copy.deepcopy, lambda cache: pickle.loads(pickle.dumps(cache))]
)
def test_the_layout_is_no_state_and_is_not_copied(copy_of) -> None:
    dyhead = dyhead_in_float64()
    names = set(dyhead.state_dict())
    dyhead(pyramid())
    assert set(dyhead.state_dict()) == names
    assert copy_of(dyhead._layouts)._latest is None
    assert dyhead._layouts._latest is not None


def test_a_module_with_a_layout_is_copied_and_pickled_whole() -> None:
    dyhead, levels = dyhead_in_float64(), pyramid()
    expected = dyhead(levels)
    for twin in (copy.deepcopy(dyhead), pickle.loads(pickle.dumps(dyhead))):
        assert all(map(torch.equal, twin(levels), expected))
