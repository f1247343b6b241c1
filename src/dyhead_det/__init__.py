"""DyHead object detectors on torchvision: train, evaluate and predict.

Parts for PyTorch code of your own:

* `DyHead`, `StackedDyHead`: the dynamic head, modules from a feature pyramid to one like it.
* `DyHeadBackbone`: backbone, FPN and DyHead as a backbone for torchvision's detectors.
* `add_dyhead`: DyHead in a torchvision detector that exists already.
* `build_detector`: the detector of a configuration, with a backbone of your own if you like.

Whole runs, as the commands of the same names:

* `train`: a configuration and a folder to checkpoints and numbers.
* `evaluate`: a checkpoint and a data set to COCO numbers.
* `load`: a checkpoint to a predictor: ``load("best.pt").predict("img.jpg")``.
"""

TYPE_CHECKING = False  # `typing` takes longer to import than the time in which Ctrl-C is unheeded

if TYPE_CHECKING:
    from dyhead_det.dyhead.head import DyHead
    from dyhead_det.dyhead.stacked import StackedDyHead
    from dyhead_det.models.add_dyhead import add_dyhead
    from dyhead_det.models.backbones.pyramid import DyHeadBackbone
    from dyhead_det.models.detectors import build_detector
    from dyhead_det.prediction.evaluate_checkpoint import evaluate_checkpoint as evaluate
    from dyhead_det.prediction.load import load
    from dyhead_det.training.train import train

__version__ = "0.1.0"

__all__ = [
    "DyHead",
    "DyHeadBackbone",
    "StackedDyHead",
    "__version__",
    "add_dyhead",
    "build_detector",
    "evaluate",
    "load",
    "train",
]

# Where each name is defined: "module:name". Read when it is asked for, so that `import dyhead_det`
# and `dyhead-det --help` do not wait for torch.
_DEFINED_IN = {
    "DyHead": "dyhead_det.dyhead.head:DyHead",
    "DyHeadBackbone": "dyhead_det.models.backbones.pyramid:DyHeadBackbone",
    "StackedDyHead": "dyhead_det.dyhead.stacked:StackedDyHead",
    "add_dyhead": "dyhead_det.models.add_dyhead:add_dyhead",
    "build_detector": "dyhead_det.models.detectors:build_detector",
    "evaluate": "dyhead_det.prediction.evaluate_checkpoint:evaluate_checkpoint",
    "load": "dyhead_det.prediction.load:load",
    "train": "dyhead_det.training.train:train",
}


def __getattr__(name: str) -> object:
    """Import a public name at its first use."""
    if name not in _DEFINED_IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - see `_DEFINED_IN`

    module, _, attribute = _DEFINED_IN[name].partition(":")
    value: object = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Show the public names alone, which are not yet imported."""
    return __all__
