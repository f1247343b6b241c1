"""A video with boxes: frames at their own times, sound as it was."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dyhead_det.files import written_whole
from dyhead_det.prediction.sources.videos import Video

if TYPE_CHECKING:
    from av import Packet
    from av.container import OutputContainer
    from av.stream import Stream

# Sound that players find in MP4; with any other the video becomes MKV, which takes all.
_SOUND_OF_MP4 = ("aac", "mp3", "ac3", "eac3", "alac", "opus", "flac")
# Constant quality of x264: 18 is hardly told from the original, 28 is poor.
_QUALITY = "23"


def video_suffix(video: Video) -> str:
    """Return how the file with boxes is to end."""
    is_mp4 = video.audio is None or video.audio.codec_context.name in _SOUND_OF_MP4
    return ".mp4" if is_mp4 else ".mkv"


@contextmanager
def video_written(path: Path, video: Video) -> Iterator["VideoWriter"]:
    """Give a writer of frames; the file is whole at the end, also where an error ends the block.

    Raises:
        OSError: If it cannot be written.
    """
    import av  # noqa: PLC0415 - an extra, which is there by now

    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as unfinished:
        container_format = "mp4" if path.suffix == ".mp4" else "matroska"
        with av.open(str(unfinished), "w", format=container_format) as container:
            writer = VideoWriter(container, video)
            yield writer
            writer.finish()


class VideoWriter:
    """Encodes pictures; see `video_written`."""

    def __init__(self, container: "OutputContainer", video: Video) -> None:
        self._container = container
        rate = video.stream.average_rate or Fraction(25)
        self._stream = container.add_stream("libx264", rate=rate, options={"crf": _QUALITY})
        self._stream.pix_fmt = "yuv420p"
        self._time_base = video.stream.time_base or 1 / rate
        self._stream.codec_context.time_base = self._time_base
        self._last_pts = -1
        self._sound = (
            None if video.audio is None else container.add_stream_from_template(video.audio)
        )
        self._waiting: list[Packet[Stream]] = []
        self._first_second = video.first_second

    def write(self, picture: NDArray[np.uint8], pts: int) -> None:
        """Encode a picture, (H, W, 3), that is shown from `pts` on, in units of the source."""
        import av  # noqa: PLC0415 - see above

        if self._last_pts < 0:
            height, width = picture.shape[:2]
            self._stream.width, self._stream.height = width - width % 2, height - height % 2
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame = frame.reformat(self._stream.width, self._stream.height, "yuv420p")
        frame.time_base = self._time_base
        frame.pts = self._last_pts = max(pts, self._last_pts + 1)
        self._container.mux(self._stream.encode(frame))

    def write_sound(self, packets: "Sequence[Packet[Stream]]") -> None:
        """Copy sound as it is, in step with the pictures, once the first of these is there."""
        self._waiting += packets
        if self._sound is None or self._last_pts < 0:
            return
        waiting, self._waiting = self._waiting, []
        for packet in waiting:
            if packet.dts is None or packet.pts is None or packet.time_base is None:
                continue  # what ends a stream
            shift = round(self._first_second / packet.time_base)
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            packet.stream = self._sound
            self._container.mux(packet)

    def finish(self) -> None:
        """Encode what still waits."""
        if self._last_pts >= 0:
            self._container.mux(self._stream.encode(None))
