"""A run as frozen, typed sections; every default of the project stands in one of them.

The sections follow the YAML file: seed, data, model, optim, schedule, train, eval, runtime. What
they are made of lies in `section`, `data`, `detectors`, `model` and `training`; this is where all
of it is imported from.
"""

from typing import Annotated, Any

from pydantic import Field, model_validator

from dyhead_det.config.data import (
    AugmentConfig,
    ClassBalancedSampling,
    DataConfig,
    DatasetConfig,
    RepeatFactorSampling,
    SamplingConfig,
    SplitConfig,
    UniformSampling,
    ValidationConfig,
)
from dyhead_det.config.detectors import (
    ATSSConfig,
    DetectorConfig,
    FasterRCNNConfig,
    FCOSConfig,
    RetinaNetConfig,
)
from dyhead_det.config.model import (
    BACKBONE_NAMES,
    BOTTLENECK_BACKBONE_NAMES,
    BackboneConfig,
    Compat,
    DyHeadConfig,
    InputConfig,
    ModelConfig,
)
from dyhead_det.config.section import (
    AnySection,
    Section,
    did_you_mean,
    parse_section,
    setting,
    to_plain,
)
from dyhead_det.config.training import (
    AutoScaleLRConfig,
    EarlyStoppingConfig,
    EMAConfig,
    EvalConfig,
    FreezeConfig,
    OptimConfig,
    RuntimeConfig,
    ScheduleConfig,
    TrackerName,
    TrainConfig,
)


class RunConfig(Section):
    """A whole run: what a YAML file holds."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = setting(
        0,
        "What everything drawn by chance follows from: order, augmentation, new weights.",
        unit="any number",
    )
    data: DataConfig = setting(..., "Where the data lie and how they are read.")
    model: ModelConfig = setting(..., "What is trained.")
    optim: OptimConfig = setting(OptimConfig(), "How it learns.")
    schedule: ScheduleConfig = setting(ScheduleConfig(), "How fast it learns, and when.")
    train: TrainConfig = setting(..., "For how long, and what is kept.")
    eval: EvalConfig = setting(EvalConfig(), "How it is scored.")
    runtime: RuntimeConfig = setting(RuntimeConfig(), "How fast it runs.")

    @model_validator(mode="after")
    def _can_stop_early(self) -> "RunConfig":
        if self.train.early_stopping is not None and self.data.val is None:
            msg = "train.early_stopping: needs validation data; give data.val or write null"
            raise ValueError(msg)
        return self


def parse_config(raw: dict[str, Any]) -> RunConfig:
    """Check plain values, as `to_plain` returns them.

    Raises:
        pydantic.ValidationError: If a value does not fit.
    """
    return parse_section(RunConfig, raw)


def changed_keys(
    old: dict[str, Any], new: dict[str, Any], harmless: tuple[str, ...] = (), prefix: str = ""
) -> list[str]:
    """Return the dotted keys whose plain values differ, leaving out harmless ones."""
    changed: list[str] = []
    for key in [*old, *(key for key in new if key not in old)]:
        path = f"{prefix}{key}"
        before, after = old.get(key), new.get(key)
        if path in harmless or before == after:
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            changed += changed_keys(before, after, harmless, f"{path}.")
        else:
            changed.append(path)
    return changed


def flat_keys(section: dict[str, Any], prefix: str = "") -> dict[str, object]:
    """Return the plain values of a configuration by dotted key."""
    flat: dict[str, object] = {}
    for key, value in section.items():
        if isinstance(value, dict):
            flat |= flat_keys(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


__all__ = [
    "BACKBONE_NAMES",
    "BOTTLENECK_BACKBONE_NAMES",
    "ATSSConfig",
    "AnySection",
    "AugmentConfig",
    "AutoScaleLRConfig",
    "BackboneConfig",
    "ClassBalancedSampling",
    "Compat",
    "DataConfig",
    "DatasetConfig",
    "DetectorConfig",
    "DyHeadConfig",
    "EMAConfig",
    "EarlyStoppingConfig",
    "EvalConfig",
    "FCOSConfig",
    "FasterRCNNConfig",
    "FreezeConfig",
    "InputConfig",
    "ModelConfig",
    "OptimConfig",
    "RepeatFactorSampling",
    "RetinaNetConfig",
    "RunConfig",
    "RuntimeConfig",
    "SamplingConfig",
    "ScheduleConfig",
    "Section",
    "SplitConfig",
    "TrackerName",
    "TrainConfig",
    "UniformSampling",
    "ValidationConfig",
    "changed_keys",
    "did_you_mean",
    "flat_keys",
    "parse_config",
    "parse_section",
    "to_plain",
]
