"""What a step and an inference of a whole detector take, with DyHead, without, and torchvision's.

    python scripts/bench_detector.py --quick
    OMP_WAIT_POLICY=PASSIVE python scripts/bench_detector.py --threads 2 --compile --out bench

Writes a markdown table per case, and the shares of the parts. All detectors of a case have the
same backbone with the same weights, and see the same image with eight boxes. The weights are
random, the frozen norms hold what they would for such weights, so that numbers have ordinary
sizes; an untrained detector finds nothing, and the last suppression has little to do. With
`--amp` the detector with DyHead runs in float32 as well.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from dyhead_det.config.file import load_config
from dyhead_det.config.schema import ModelConfig, RuntimeConfig
from dyhead_det.contracts import Target
from dyhead_det.models.detectors import Detector, build_detector
from dyhead_det.models.runtime import autocast, prepare_detector
from measuring import (
    Cost,
    add_precision,
    draw_bars,
    machine,
    markdown,
    median_costs,
    option_parser,
    parse,
    peak_mib,
    precision,
    report,
)

CONFIGS = Path(__file__).parents[1] / "configs"
NUM_CLASSES = 80
NUM_BOXES = 8
PARTS = {
    "resize and pad": "network.transform",
    "backbone": "network.backbone.body",
    "FPN": "network.backbone.fpn",
    "DyHead": "network.backbone.dyhead",
    "proposals": "network.rpn",
    "box head": "network.roi_heads",
    "head": "network.head",
}

WITH_DYHEAD = "with DyHead"
IN_FLOAT32 = f"{WITH_DYHEAD}, float32"
BASELINE = "with DyHead, torchvision's operator and layout"

Step = Callable[[], None]


@dataclass(frozen=True)
class Case:
    """A detector, its backbone, and the size of the images, before and after resizing.

    ``torchvision`` builds the same from torchvision's parts, where that has the backbone.
    """

    name: str
    config: str
    size_hw: tuple[int, int]
    overrides: tuple[str, ...] = ()
    has_torchvision: bool = True

    @property
    def title(self) -> str:
        """Name for the table."""
        return f"{self.name}, {self.size_hw[0]} x {self.size_hw[1]}"


SMALL = (
    "model.backbone.name=mobilenet_v3_large",
    "model.channels=96",
    "model.dyhead={num_blocks: 2}",
)
CASES = (
    Case("Faster R-CNN R50", "fasterrcnn_r50_dyhead.yaml", (800, 1333)),
    Case("RetinaNet R50", "retinanet_r50_dyhead.yaml", (800, 1333)),
    Case("Faster R-CNN R50", "fasterrcnn_r50_dyhead.yaml", (480, 640)),
    Case("RetinaNet R50", "retinanet_r50_dyhead.yaml", (480, 640)),
    Case("Faster R-CNN small", "fasterrcnn_r50_dyhead.yaml", (320, 320), SMALL, False),
)
QUICK_CASES = (
    Case("RetinaNet R50", "retinanet_r50_dyhead.yaml", (128, 192)),
    Case("Faster R-CNN small", "fasterrcnn_r50_dyhead.yaml", (192, 256), SMALL, False),
)


def main() -> None:
    """Measure all cases; a long run that is stopped keeps what it has measured."""
    options = parse_options()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    gpu = f"{torch.cuda.get_device_name()}, " if device.type == "cuda" else ""
    lines = [
        f"# Detectors\n\n{gpu}{machine()}; {precision(options)}; {options.threads} threads; one "
        f"image a step; medians of {options.rounds} interleaved rounds; x = times faster "
        "than DyHead on torchvision's operator, by the clock and by CPU time.\n"
    ]
    bars = {}
    for case in QUICK_CASES if options.quick else CASES:
        if options.only in case.title:
            rows, bars[case.title] = measure(case, device, options)
            lines += [*rows, ""]
            options.out.mkdir(parents=True, exist_ok=True)
            (options.out / "bench_detector.md").write_text("\n".join(lines), encoding="utf-8")
    report(lines, options.out / "bench_detector.md")
    draw_bars(bars, "seconds of a training step", options.out / "bench_detector.png")


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = option_parser(__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--compile", action="store_true", help="with runtime.compile as well")
    parser.add_argument("--only", default="", help="only cases with this in their title")
    add_precision(parser)
    return parse(parser)


def measure(
    case: Case, device: torch.device, options: argparse.Namespace
) -> tuple[list[str], dict[str, float]]:
    """Return the tables of one case, and the seconds of each detector's training step."""
    detectors = build_contestants(case, device, use_compile=options.compile)
    images, targets = example(case, device)
    precisions = dict.fromkeys(detectors, options.amp)
    if options.amp != "off":
        detectors[IN_FLOAT32], precisions[IN_FLOAT32] = detectors[WITH_DYHEAD], "off"
    tests = {
        name: partial(infer, each, images, precisions[name]) for name, each in detectors.items()
    }
    steps = {
        name: training_step(each, images, targets, precisions[name])
        for name, each in detectors.items()
    }
    if device.type == "cuda":
        tests = {name: partial(run_to_the_end, run) for name, run in tests.items()}
        steps = {name: partial(run_to_the_end, run) for name, run in steps.items()}
    peaks = {name: peak_mib(run, device) for name, run in steps.items()}  # warms up, too
    for run in tests.values():
        run()
    costs = [median_costs(tests, options.rounds), median_costs(steps, options.rounds)]
    rows = [
        [name, *cells(costs[0], name), *cells(costs[1], name), f"{peaks[name]:.0f}"]
        for name in detectors
    ]
    columns = [case.title, "inference s", "x", "x CPU", "step s", "x", "x CPU", "step MiB"]
    with_dyhead = detectors[WITH_DYHEAD]
    tables = [
        *markdown(columns, rows),
        "",
        *shares(with_dyhead, tests[WITH_DYHEAD], "inference"),
        "",
        *shares(with_dyhead, steps[WITH_DYHEAD], "step"),
    ]
    return tables, {name: cost.seconds for name, cost in costs[1].items()}


def build_contestants(
    case: Case, device: torch.device, *, use_compile: bool
) -> dict[str, nn.Module]:
    """Build the detectors of a case, with the same weights in their backbones."""
    height, width = case.size_hw
    sizes = (
        f"model.input.short_edge={min(height, width)}",
        f"model.input.long_edge={max(height, width)}",
        "model.backbone.weights=none",
    )
    config = load_config(CONFIGS / case.config, (*case.overrides, *sizes)).model
    plain = config.model_copy(update={"dyhead": None})
    backbone = settled_body(plain, case.size_hw)
    on_torchvision = config.dyhead.model_copy(update={"deform_backend": "torchvision"})
    stock = config.model_copy(update={"dyhead": on_torchvision})
    detectors: dict[str, nn.Module] = {
        BASELINE: build_ours(stock, backbone, device, RuntimeConfig(channels_last=False)),
        WITH_DYHEAD: build_ours(config, backbone, device, RuntimeConfig()),
    }
    if use_compile:
        detectors[f"{WITH_DYHEAD}, compiled"] = build_ours(
            config, backbone, device, RuntimeConfig(compile=True)
        )
    detectors["without DyHead"] = build_ours(plain, backbone, device, RuntimeConfig())
    if case.has_torchvision:
        detectors["torchvision's own, without DyHead"] = build_torchvision(plain, backbone).to(
            device
        )
    return detectors


def settled_body(config: ModelConfig, size_hw: tuple[int, int]) -> dict[str, Tensor]:
    """Return the weights of a fresh backbone, its norms' statistics those of random images."""
    torch.manual_seed(0)
    unfrozen = config.backbone.model_copy(update={"norm": "normal"})
    fresh = build_detector(
        config.model_copy(update={"backbone": unfrozen}),
        num_classes=NUM_CLASSES,
        load_backbone_weights=False,
    )
    backbone = fresh.backbone.body.train()
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        backbone(torch.randn(2, 3, *size_hw))
    return backbone.state_dict()


def build_ours(
    config: ModelConfig, backbone: dict[str, Tensor], device: torch.device, runtime: RuntimeConfig
) -> Detector:
    """Build one of our detectors."""
    torch.manual_seed(0)
    detector = build_detector(config, num_classes=NUM_CLASSES, load_backbone_weights=False)
    detector.backbone.body.load_state_dict(backbone)
    prepare_detector(runtime, detector, device)
    return detector


def build_torchvision(config: ModelConfig, backbone: dict[str, Tensor]) -> nn.Module:
    """Build the detector of `fasterrcnn_resnet50_fpn` or `retinanet_resnet50_fpn`.

    From the parts that these take: they themselves freeze norms only with weights to download.
    """
    is_two_stage = config.detector.name == "fasterrcnn"
    pyramid = resnet_fpn_backbone(
        backbone_name="resnet50",
        weights=None,
        norm_layer=FrozenBatchNorm2d,
        trainable_layers=5,
        returned_layers=None if is_two_stage else [2, 3, 4],
        extra_blocks=None if is_two_stage else LastLevelP6P7(256, 256),
    )
    known = pyramid.body.state_dict()
    pyramid.body.load_state_dict({name: backbone[name] for name in known})
    sizes = {"min_size": config.input.short_edge, "max_size": config.input.long_edge}
    network = FasterRCNN if is_two_stage else RetinaNet
    num_classes = NUM_CLASSES + 1 if is_two_stage else NUM_CLASSES
    return Torchvision(network(pyramid, num_classes, **sizes), first_label=int(is_two_stage))


class Torchvision(nn.Module):
    """Torchvision's detector, called like ours."""

    def __init__(self, network: nn.Module, *, first_label: int) -> None:
        super().__init__()
        self.network = network
        self.first_label = first_label

    def forward(self, images: list[Tensor], targets: list[Target] | None = None) -> object:
        """Return losses or detections."""
        numbered = [
            {"boxes": target["boxes"], "labels": target["labels"] + self.first_label}
            for target in targets or []
        ]
        return self.network(images, numbered or None)


def example(case: Case, device: torch.device) -> tuple[list[Tensor], list[Target]]:
    """Draw an image and the boxes in it."""
    torch.manual_seed(1)
    height, width = case.size_hw
    sizes = torch.tensor([width, height]) * (0.1 + 0.3 * torch.rand(NUM_BOXES, 2))
    corners = (torch.tensor([width, height]) - sizes) * torch.rand(NUM_BOXES, 2)
    target = Target(
        boxes=torch.cat((corners, corners + sizes), dim=1).to(device),
        labels=torch.randint(NUM_CLASSES, (NUM_BOXES,), device=device),
        image_id=torch.tensor(0),
    )
    return [torch.rand(3, height, width, device=device)], [target]


def infer(detector: nn.Module, images: list[Tensor], amp: str) -> None:
    """Predict."""
    detector.eval()
    with torch.inference_mode(), autocast(amp, images[0].device):
        detector(images)


def training_step(
    detector: nn.Module, images: list[Tensor], targets: list[Target], amp: str
) -> Step:
    """Return forward, backward and an update that hardly moves the weights."""
    optimizer = torch.optim.SGD(
        [each for each in detector.parameters() if each.requires_grad], lr=1e-9, momentum=0.9
    )

    def step() -> None:
        detector.train()
        optimizer.zero_grad(set_to_none=True)
        with autocast(amp, images[0].device):
            losses = detector(images, targets)
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()

    return step


def run_to_the_end(run: Step) -> None:
    """Run, and wait for the GPU."""
    run()
    torch.cuda.synchronize()


def cells(costs: dict[str, Cost], name: str) -> list[str]:
    """Return seconds, and how often they go into those of the baseline, by both clocks."""
    cost, baseline = costs[name], costs[BASELINE]
    return [
        f"{cost.seconds:.2f}",
        f"{baseline.seconds / cost.seconds:.1f}",
        f"{baseline.cpu_seconds / cost.cpu_seconds:.1f}",
    ]


def shares(detector: nn.Module, run: Step, title: str) -> list[str]:
    """Say what share of a run each part's forward takes; backward is in what is left."""
    clock = Clock(next(detector.parameters()).device)
    with clock.listening(detector):
        started_at = clock.now()
        run()
        whole = clock.now() - started_at
    rest = "rest" if title == "inference" else "losses, backward, update"
    parts = {**clock.seconds, rest: whole - sum(clock.seconds.values())}
    numbers = [f"{100 * seconds / whole:.0f} %" for seconds in parts.values()]
    return markdown([f"share of {title}", *parts], [["", *numbers]])


class Clock:
    """Sums up the CPU seconds (on a GPU those of the clock) of the parts of a detector."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}

    def now(self) -> float:
        """Return the time when all that was asked for is done."""
        if self.device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    @contextmanager
    def listening(self, detector: nn.Module) -> Iterator[None]:
        """Time the forward of every part that there is."""
        names = dict(detector.named_modules())
        handles = []
        for part, name in PARTS.items():
            if name in names:
                handles.append(names[name].register_forward_pre_hook(partial(self._start, part)))
                handles.append(names[name].register_forward_hook(partial(self._stop, part)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _start(self, part: str, *_: object) -> None:
        self.seconds[part] = self.seconds.get(part, 0) - self.now()

    def _stop(self, part: str, *_: object) -> None:
        self.seconds[part] += self.now()


if __name__ == "__main__":
    main()
