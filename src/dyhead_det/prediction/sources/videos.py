"""Frames of videos: files, cameras and streams, as PyAV opens them (extra `video`)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dyhead_det.errors import ConfigError, DatasetError
from dyhead_det.escaping import printable, without_passwords
from dyhead_det.prediction.sources.video_names import is_camera

if TYPE_CHECKING:
    from av import Packet
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.stream import Stream
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

# Of the duration of a file.
_TICKS_PER_SECOND = 1_000_000


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame as a player shows it.

    number: its position in the video, from 0; time: in seconds from the first frame; pts: the same
    in the units of the stream; pixels: RGB (3, H, W) uint8.
    """

    number: int
    time: float
    pts: int
    pixels: Tensor


class Video:
    """An open video; use `open_video`.

    Attributes:
        stream: its pictures.
        audio: its sound, None without.
        num_broken: pieces that could not be decoded, and frames that the decoder calls corrupt.
        ended_because: what ended the reading before its time, empty without.
    """

    def __init__(self, container: "InputContainer") -> None:
        self._container = container
        self.stream: VideoStream = container.streams.video[0]
        self.stream.thread_type = "AUTO"
        self.audio: AudioStream | None = next(iter(container.streams.audio), None)
        self._sound: list[Packet[Stream]] = []
        self.num_broken = 0
        self.ended_because = ""

    def frames(self, every: int = 1) -> Iterator[Frame]:
        """Yield every n-th frame; what cannot be decoded is counted and left out."""
        first_pts: int | None = None
        number, seconds = -1, 0.0
        for frame in self._decoded():
            number += 1
            self.num_broken += frame.is_corrupt
            pts = number if frame.pts is None else frame.pts
            first_pts = pts if first_pts is None else first_pts
            seconds = float((pts - first_pts) * (frame.time_base or 0))
            if number % every == 0:
                yield Frame(number, seconds, pts - first_pts, _shown(frame))
        announced = (self._container.duration or 0) / _TICKS_PER_SECOND
        if not self.ended_because and seconds < announced - max(1.0, announced / 20):
            self.ended_because = f"after {seconds:.1f} of {announced:.1f} seconds"

    def take_sound(self) -> "list[Packet[Stream]]":
        """Return what was met of the sound since the last call."""
        taken, self._sound = self._sound, []
        return taken

    @property
    def first_second(self) -> float:
        """Where the pictures begin on the clock that they share with the sound."""
        return float((self.stream.start_time or 0) * (self.stream.time_base or 0))

    def _decoded(self) -> "Iterator[VideoFrame]":
        from av import FFmpegError  # noqa: PLC0415 - an extra, which is there by now

        streams = [self.stream] if self.audio is None else [self.stream, self.audio]
        try:
            for packet in self._container.demux(streams):
                if packet.stream is not self.stream:
                    self._sound.append(packet)
                    continue
                try:
                    yield from self.stream.decode(packet)
                except FFmpegError:
                    self.num_broken += 1
        except FFmpegError as error:
            self.ended_because = printable(error.strerror or error)


@contextmanager
def open_video(source: str) -> Iterator[Video]:
    """Open a video file, a camera such as `/dev/video0`, or the address of a stream.

    Raises:
        ConfigError: If PyAV is not installed.
        DatasetError: If it cannot be opened, or has no pictures.
    """
    try:
        import av  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigError("videos need PyAV: pip install 'dyhead-det[video]'") from error
    shown = printable(without_passwords(source), max_length=200)
    try:
        container = av.open(source, format="v4l2" if is_camera(source) else None)
    except (av.FFmpegError, OSError) as error:
        raise DatasetError(f"{shown}: cannot be opened as a video ({error.strerror})") from error
    with container:
        if not container.streams.video:
            raise DatasetError(f"{shown}: has no pictures, only {_kinds([*container.streams])}")
        yield Video(container)


def _kinds(streams: Sequence[object]) -> str:
    return ", ".join(sorted({str(getattr(stream, "type", "")) for stream in streams})) or "nothing"


def _shown(frame: "VideoFrame") -> Tensor:
    """Return the pixels, turned as the metadata of a phone's video say."""
    pixels = frame.to_ndarray(format="rgb24")  # (H, W, 3)
    turned = np.rot90(pixels, k=round(frame.rotation / 90))  # counterclockwise
    return torch.from_numpy(np.ascontiguousarray(turned.transpose(2, 0, 1)))
