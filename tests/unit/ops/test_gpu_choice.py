"""Which backend a GPU gets: the fastest, Triton's only where it is right; without a GPU here."""

import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from dyhead_det.dyhead import head
from dyhead_det.errors import ConfigError
from dyhead_det.ops import deform_conv, gpu_choice
from dyhead_det.ops.deform_conv import resolve_backend
from dyhead_det.ops.gpu_choice import GpuChooser, choices_path, require_triton, why_no_triton
from dyhead_det.ops.gpu_trials import Workload

GPU = torch.device("cuda", 0)
WORKLOAD = Workload(GPU, torch.bfloat16, False, 256, 2**14, True)
OTHERS = ("torchvision", "gather")


@pytest.fixture(autouse=True)
def _gpu_of_that_name(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA Thought")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    why_no_triton.cache_clear()
    yield
    why_no_triton.cache_clear()


class Trials:
    """Stands for what a GPU would tell, and counts how often it was asked."""

    def __init__(self, path: Path, *, problem: str | None = None, **milliseconds: float) -> None:
        self.num_comparisons, self.timed = 0, []
        self.problem, self.taken = problem, milliseconds
        self.path = path

    def find_problem(self, workload: Workload) -> str | None:
        self.num_comparisons += 1
        return self.problem

    def milliseconds(self, backend: str, workload: Workload) -> float:
        self.timed.append(backend)
        return self.taken[backend]

    def chooser(self) -> GpuChooser:
        return GpuChooser(self.find_problem, self.milliseconds, self.path)


def choose(chooser: GpuChooser) -> str:
    return chooser.fastest(WORKLOAD, OTHERS, fallback="gather")


@pytest.mark.parametrize("fastest", ["triton", "torchvision", "gather"])
def test_the_fastest_is_taken_told_and_not_tried_again(fastest, tmp_path, caplog) -> None:
    times = {"triton": 2.0, "torchvision": 3.0, "gather": 4.0, fastest: 1.0}
    trials = Trials(tmp_path / "new" / "choices.json", **times)
    chooser = trials.chooser()
    with caplog.at_level(logging.INFO):
        assert [choose(chooser), choose(chooser)] == [fastest, fastest]
    (message,) = caplog.messages
    assert f"by {fastest}: triton {times['triton']:.2f} ms, torchvision" in message
    assert "NVIDIA Thought, torch " in message
    assert "bfloat16, 256 channels, about 16384 locations, forward and backward" in message
    assert trials.timed == ["triton", "torchvision", "gather"]
    # Another process: nothing is timed, but Triton's kernels show again that they are right.
    later = Trials(trials.path)
    assert choose(later.chooser()) == fastest
    assert (later.timed, later.num_comparisons) == ([], int(fastest == "triton"))


def test_wrong_kernels_are_one_warning_and_another_backend(tmp_path, caplog) -> None:
    trials = Trials(tmp_path / "choices.json", problem="output differs by 0.3")
    chooser = trials.chooser()
    assert [choose(chooser), choose(chooser)] == ["gather", "gather"]
    assert not chooser.is_triton_right(WORKLOAD)
    (message,) = caplog.messages
    assert "triton is not used for bfloat16 on this GPU" in message
    assert "output differs by 0.3" in message
    assert (trials.num_comparisons, trials.timed, trials.path.exists()) == (1, [], False)


def test_a_choice_of_earlier_does_not_vouch_for_the_kernels(tmp_path) -> None:
    path = tmp_path / "choices.json"
    assert choose(Trials(path, triton=1, torchvision=2, gather=3).chooser()) == "triton"
    assert choose(Trials(path, problem="they changed").chooser()) == "gather"


@pytest.mark.parametrize("content", [b"", b"[]", b'{"a', b"\xff", b'{"x": 1}'])
def test_a_damaged_file_is_written_anew(content, tmp_path) -> None:
    path = tmp_path / "choices.json"
    path.write_bytes(content)
    assert choose(Trials(path, triton=1, torchvision=2, gather=3).chooser()) == "triton"
    assert choose(Trials(path).chooser()) == "triton"


def test_a_folder_that_cannot_be_written_costs_only_the_next_runs_time(tmp_path, caplog) -> None:
    (tmp_path / "file").write_text("")
    trials = Trials(tmp_path / "file" / "choices.json", triton=1, torchvision=2, gather=3)
    with caplog.at_level(logging.INFO):
        assert choose(trials.chooser()) == "triton"
    assert "not kept for later runs" in caplog.messages[-1]


def test_what_was_too_much_for_the_memory_is_not_kept(tmp_path) -> None:
    inf = float("inf")
    trials = Trials(tmp_path / "choices.json", triton=inf, torchvision=2, gather=3)
    assert choose(trials.chooser()) == "torchvision"
    everything = Trials(tmp_path / "choices.json", triton=inf, torchvision=inf, gather=inf)
    assert choose(everything.chooser()) == "gather"
    assert not trials.path.exists()


def test_choices_lie_in_the_users_cache(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert choices_path() == tmp_path / "dyhead-det" / "deform_backends.json"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert choices_path() == Path.home() / ".cache" / "dyhead-det" / "deform_backends.json"


def test_why_triton_cannot_run(monkeypatch) -> None:
    assert why_no_triton(GPU) is None
    assert "on a GPU" in why_no_triton(torch.device("cpu"))
    why_no_triton.cache_clear()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    assert "compute capability 8.0, NVIDIA Thought has 7.5" in why_no_triton(GPU)
    why_no_triton.cache_clear()
    monkeypatch.setattr(gpu_choice, "find_spec", lambda _: None)
    assert "pip install triton" in why_no_triton(GPU)


def test_triton_on_a_cpu_is_one_line_that_says_what_to_do() -> None:
    x = torch.zeros(1, 1, 2, 2)
    for refused in (lambda: require_triton(x.device), lambda: resolve_backend("triton", x)):
        with pytest.raises(ConfigError, match="deform_backend: triton was asked for") as caught:
            refused()
        assert "`auto` takes what runs here" in str(caught.value)


@pytest.fixture
def meta_is_a_gpu(monkeypatch) -> None:
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)  # `meta` has none
    monkeypatch.setattr(deform_conv, "_can_be_tried", lambda x: x.device.type == "meta")
    monkeypatch.setattr(deform_conv, "why_no_triton", lambda device: None)
    monkeypatch.setattr(deform_conv, "require_triton", lambda device: None)


@pytest.mark.parametrize(
    ("dtype", "by_features", "candidates", "otherwise"),
    [
        (torch.float32, False, ["triton", "torchvision", "gather"], "torchvision"),
        (torch.float32, True, ["triton", "gather"], "gather"),
        (torch.bfloat16, False, ["triton", "gather"], "gather"),
    ],
)
def test_maps_on_a_gpu_are_tried_in_their_type(
    dtype, by_features, candidates, otherwise, meta_is_a_gpu, monkeypatch, tmp_path
) -> None:
    x = torch.empty(2, 64, 90, 100, device="meta", dtype=dtype)
    resolve = partial(resolve_backend, x=x, by_features=by_features)
    right = Trials(tmp_path / "right.json", triton=1, torchvision=2, gather=3)
    monkeypatch.setattr(deform_conv, "_gpu_chooser", right.chooser)
    assert resolve("auto") == resolve("triton") == "triton"
    assert right.timed == candidates
    wrong = Trials(tmp_path / "wrong.json", problem="wrong")
    monkeypatch.setattr(deform_conv, "_gpu_chooser", wrong.chooser)
    assert resolve("auto") == resolve("triton") == otherwise


def test_what_is_chosen_for_one_convolution_is_not_taken_for_a_block(
    meta_is_a_gpu, monkeypatch, tmp_path
) -> None:
    x = torch.empty(2, 64, 90, 100, device="meta")
    trials = Trials(tmp_path / "choices.json", triton=2, torchvision=1, gather=3)
    for _ in range(2):  # as remembered, too
        monkeypatch.setattr(deform_conv, "_gpu_chooser", trials.chooser)
        assert resolve_backend("auto", x) == "torchvision"
        assert resolve_backend("auto", x, by_features=True) == "triton"


def test_no_maps_need_no_comparison(meta_is_a_gpu, monkeypatch) -> None:
    monkeypatch.setattr(deform_conv, "_gpu_chooser", None)
    for size in ((0,), (0, 1, 2, 2)):
        assert resolve_backend("triton", torch.empty(size, device="meta")) == "triton"


def test_nothing_is_tried_where_bits_have_to_be_equal(meta_is_a_gpu, monkeypatch) -> None:
    monkeypatch.setattr(deform_conv, "_gpu_chooser", None)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert resolve_backend("auto", torch.empty(1, 1, 2, 2, device="meta")) == "gather"


def test_nothing_is_tried_on_a_cpu_or_for_no_maps() -> None:
    x = torch.zeros(1, 1, 2, 2)
    assert not deform_conv._can_be_tried(x)
    assert resolve_backend("auto", x) == resolve_backend("auto", torch.zeros(0)) == "gather"


def test_a_stack_of_whole_blocks_asks_for_backends_of_features(monkeypatch) -> None:
    asked: list[bool] = []

    def resolve(*_: object, by_features: bool) -> str:
        asked.append(by_features)
        return "gather"

    monkeypatch.setattr(head, "resolve_backend", resolve)
    for spatial in ("deform", "conv"):
        head.DyHead(16, 1, spatial=spatial)([torch.zeros(1, 16, 4, 4)])
    assert asked == [True, False]
