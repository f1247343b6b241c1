"""DyHead object detectors on torchvision: train, evaluate and predict.

``from dyhead_det import load`` gives a trained detector: ``load("best.pt").predict("img.jpg")``.
"""

TYPE_CHECKING = False  # `typing` takes longer to import than the time in which Ctrl-C is unheeded

__all__ = ["__version__", "load"]

__version__ = "0.1.0"

if TYPE_CHECKING:
    from dyhead_det.prediction.predictor import load


def __getattr__(name: str) -> object:
    """Import torch only when a detector is asked for, so that `dyhead-det --help` is instant."""
    if name == "load":
        from dyhead_det.prediction.predictor import load  # noqa: PLC0415 - see above

        return load
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
