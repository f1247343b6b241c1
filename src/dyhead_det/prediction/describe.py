"""`info`: a configuration or a checkpoint as a page of text."""

from pathlib import Path

from dyhead_det.checkpoints.checkpoint import Checkpoint, load_checkpoint
from dyhead_det.checkpoints.consistency import require_consistent
from dyhead_det.config.file import load_config
from dyhead_det.config.schema import ModelConfig, RunConfig
from dyhead_det.data.build_datasets import load_training_data
from dyhead_det.errors import ConfigError, DatasetError
from dyhead_det.escaping import listed, printable
from dyhead_det.models.cost import DetectorCost, measure_cost
from dyhead_det.prediction.arguments import MAX_EDGE, require_count
from dyhead_det.tables import text_table

# COCO's, where the data set of a configuration is not at hand to tell.
_NUM_COCO_CLASSES = 80
# LVIS has 1203 classes.
_MAX_NAMED = 100


def describe(
    source: Path, overrides: tuple[str, ...], *, height: int | None, width: int | None
) -> str:
    """Return classes, levels with strides, parameters and GMACs by part.

    Args:
        source: A YAML file, or else a checkpoint.
        overrides: ``key=value`` for a YAML file.
        height: Of the resized image in pixels; None for the short edge.
        width: Of the resized image in pixels; None for the long edge.

    Raises:
        ConfigError: If a configuration is wrong.
        CheckpointError: If a checkpoint cannot be used.
        ValueError: If a size is no number of pixels.
    """
    for name, value in {"height": height, "width": width}.items():
        if value is not None:
            require_count(name, value, most=MAX_EDGE)
    if source.suffix.lower() in (".yaml", ".yml"):
        config = load_config(source, overrides)
        names, lines = _names_from_data(config), [f"configuration  {printable(source)}"]
    else:
        if overrides:
            msg = "--set changes a YAML file; a checkpoint is what it is"
            raise ConfigError(msg)
        checkpoint = load_checkpoint(source)
        require_consistent(checkpoint, source=str(source))
        config, names = checkpoint.config, checkpoint.categories.names
        lines = _describe_checkpoint(source, checkpoint)
    size_hw = (height or config.model.input.short_edge, width or config.model.input.long_edge)
    num_classes = len(names) or _NUM_COCO_CLASSES
    cost = measure_cost(config.model, num_classes=num_classes, size_hw=size_hw)
    return "\n".join([*lines, *_describe_model(config, names), "", *_cost_table(cost)])


def _names_from_data(config: RunConfig) -> tuple[str, ...]:
    try:
        return load_training_data(config.data).categories.names
    except DatasetError:
        return ()


def _describe_checkpoint(path: Path, checkpoint: Checkpoint) -> list[str]:
    scores = ", ".join(
        f"{name} {value:.3f}"
        for name, value in checkpoint.metrics.items()
        if name in ("AP", "AP50") and value is not None
    )
    return [
        f"checkpoint     {printable(path)}",
        f"trained        {checkpoint.step} steps; {scores or 'no AP'}",
    ]


def _describe_model(config: RunConfig, names: tuple[str, ...]) -> list[str]:
    model = config.model
    classes = "unknown, no data: counted as 80"
    if names:
        classes = f"{len(names)}: {listed(names, max_named=_MAX_NAMED)}"
    return [
        f"detector       {model.detector.name}",
        f"backbone       {model.backbone.name}",
        f"DyHead         {_describe_dyhead(model)}",
        f"classes        {classes}",
    ]


def _describe_dyhead(model: ModelConfig) -> str:
    """Name the scheme, the size, and what is not as usual."""
    dyhead = model.dyhead
    if dyhead is None:
        return "none (plain torchvision detector)"
    traits = [dyhead.scheme, f"{dyhead.num_blocks} blocks of {model.channels} channels"]
    if len(dyhead.attention) < 3:
        traits.append(f"{' and '.join(dyhead.attention)} attention only")
    if "spatial" in dyhead.attention and dyhead.spatial == "conv":
        traits.append("plain convolutions")
    elif "spatial" in dyhead.attention and dyhead.scheme == "levels":
        traits.append(f"{dyhead.coarse_offsets} offsets")
    if "task" in dyhead.attention and dyhead.dynamic_relu == "shared":
        traits.append("one dynamic ReLU for all channels")
    return ", ".join([*traits, f"residual {dyhead.residual}"])


def _cost_table(cost: DetectorCost) -> list[str]:
    height, width = cost.size_hw
    levels = ", ".join(
        f"{name} 1/{stride} ({height // stride}x{width // stride})"
        for name, stride in zip(cost.levels.names, cost.levels.strides, strict=True)
    )
    rows = [
        (part.name, f"{part.num_parameters / 1e6:.2f}", f"{part.gmacs:.1f}")
        for part in (*cost.modules, cost.total)
    ]
    return [
        f"levels of a {height}x{width} image: {levels}",
        "",
        text_table(("part", "million parameters", "GMACs"), rows),
    ]
