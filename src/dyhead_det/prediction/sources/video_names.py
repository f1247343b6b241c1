"""What videos, cameras and streams are called; nothing heavy, the command line asks."""

import re
from pathlib import Path

from dyhead_det.files import VIDEO_SUFFIXES

_STREAM = re.compile(r"^(rtsps?|rtmps?|https?|udp|tcp|srt)://", re.IGNORECASE)
_CAMERA = re.compile(r"^/dev/video\d+$")


def is_video(source: str) -> bool:
    """Return whether a source is called as a video file, a camera or a stream is."""
    is_elsewhere = _STREAM.match(source) is not None or is_camera(source)
    return is_elsewhere or Path(source).suffix.lower() in VIDEO_SUFFIXES


def is_camera(source: str) -> bool:
    """Return whether a source is a camera of this machine."""
    return _CAMERA.match(source) is not None
