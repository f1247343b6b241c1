"""Videos: boxes on every frame, times and sound as they were, damage told."""

import json
import signal
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from dyhead_det.contracts import Category, CategoryMap
from dyhead_det.errors import ConfigError, DatasetError, OutputError, StoppedError
from dyhead_det.prediction import video
from dyhead_det.prediction.options import PredictOptions
from dyhead_det.prediction.outputs.video_file import VideoWriter
from dyhead_det.prediction.predictor import Predictor
from dyhead_det.prediction.sources.video_names import is_video
from dyhead_det.prediction.sources.videos import open_video
from dyhead_det.prediction.video import predict_videos

av = pytest.importorskip("av")

HEIGHT, WIDTH = 48, 64
# Milliseconds at which the frames are shown: the rate varies.
TIMES = (0, 40, 80, 200, 240, 400)


class FindsBright(nn.Module):
    """Finds the part of an image that is bright."""

    def forward(self, images):
        return [self.find(image) for image in images]

    def find(self, image):
        y, x = (image.mean(0) > 0.5).nonzero(as_tuple=True)
        box = [0, 0, 1, 1]
        if len(x):
            box = [int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1]
        return {
            "boxes": torch.tensor([box]).float(),
            "scores": torch.tensor([0.9]),
            "labels": torch.tensor([0]),
        }


@pytest.fixture
def predictor():
    categories = CategoryMap((Category("bright", 1),))
    return Predictor(FindsBright(), categories, device=torch.device("cpu"))


def write_video(path, *, has_sound=True, times=TIMES):
    """Write a bright block that moves right, 8 pixels a frame, from the upper left corner."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        sound = container.add_stream("aac", rate=16000) if has_sound else None
        for number, milliseconds in enumerate(times):
            pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
            pixels[:16, 8 * number : 8 * number + 16] = 255
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = milliseconds, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            wave = np.sin(np.arange(6400) / 8)[None].astype(np.float32)
            samples = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            samples.sample_rate = 16000
            container.mux(sound.encode(samples))
            container.mux(sound.encode(None))
    return path


def turn_by_metadata(path):
    """Let players turn the picture clockwise by a quarter, as phones do: patch the matrix."""
    upright = [0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000]
    turned = [0, 0x10000, 0, -0x10000, 0, 0, HEIGHT << 16, 0, 0x40000000]
    matrices = [np.array(each, ">i4").tobytes() for each in (upright, turned)]
    content = path.read_bytes()
    start = content.index(matrices[0], content.index(b"tkhd"))  # of the first track
    path.write_bytes(content[:start] + matrices[1] + content[start + 36 :])


def lines_of(out):
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]


def predict(predictor, sources, out, **options):
    return predict_videos(
        predictor,
        [str(source) for source in sources],
        out,
        options=PredictOptions(batch_size=2),
        **{"outputs": ("pictures", "json"), **options},
    )


def facts_of(path):
    """Times of frames in milliseconds, their size, and the seconds of sound."""
    with av.open(str(path)) as container:
        frames = [*container.decode(video=0)]
        times = [round(1000 * frame.time) for frame in frames]
        size = (frames[0].width, frames[0].height)
    with av.open(str(path)) as container:
        sound = sum(f.samples for f in container.decode(audio=0)) if container.streams.audio else 0
    return times, size, sound


@pytest.mark.parametrize("num_workers", [0, 2])
def test_frames_keep_their_times_and_the_video_its_sound(predictor, tmp_path, num_workers):
    clip, out = write_video(tmp_path / "clip.mp4"), tmp_path / "out"
    summary = predict(predictor, [clip], out, num_workers=num_workers)
    assert (summary.num_images, summary.num_detections) == (6, 6)
    lines = lines_of(out)
    assert [line["frame"] for line in lines] == [0, 1, 2, 3, 4, 5]
    assert [round(1000 * line["time"]) for line in lines] == list(TIMES)
    lefts = [line["detections"][0]["bbox"][0] for line in lines]
    assert lefts == pytest.approx([0, 8, 16, 24, 32, 40], abs=1)
    times, size, sound = facts_of(out / "videos" / "clip.mp4")
    assert times == list(TIMES)
    assert size == (5 * WIDTH, 5 * HEIGHT)  # small pictures are enlarged, so that labels fit
    assert sound == facts_of(clip)[2] > 6000
    images = json.loads((out / "images.json").read_text())["images"]
    assert [image["id"] for image in images] == [1, 2, 3, 4, 5, 6]


def test_every_second_frame_of_two_videos_without_sound(predictor, tmp_path):
    (tmp_path / "b").mkdir()
    videos = [
        write_video(tmp_path / "clip.mp4", has_sound=False),
        write_video(tmp_path / "b" / "clip.mkv", has_sound=False),
    ]
    out = tmp_path / "out"
    predict(predictor, videos, out, every=2)
    lines = lines_of(out)
    assert [line["image_id"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["frame"] for line in lines] == [0, 2, 4] * 2
    for name in ("clip.mp4", "clip-2.mp4"):
        assert facts_of(out / "videos" / name)[0] == [0, 80, 240]


def test_a_video_of_a_phone_is_turned_as_players_show_it(predictor, tmp_path):
    clip, out = write_video(tmp_path / "clip.mp4"), tmp_path / "out"
    turn_by_metadata(clip)
    predict(predictor, [clip], out)
    first, *_, last = lines_of(out)
    assert (first["width"], first["height"]) == (HEIGHT, WIDTH)
    # What was in the upper left corner is in the upper right, and moves down.
    assert first["detections"][0]["bbox"] == pytest.approx([32, 0, 16, 16], abs=1)
    assert last["detections"][0]["bbox"] == pytest.approx([32, 40, 16, 16], abs=1)


def test_of_a_truncated_video_what_can_be_read_is_kept(predictor, tmp_path):
    times = [1000 * second for second in range(30)]
    clip, out = write_video(tmp_path / "clip.mkv", has_sound=False, times=times), tmp_path / "out"
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size * 2 // 3])
    with pytest.raises(DatasetError, match=r"clip\.mkv: .*ends early \(after .* of 29\.\d seconds"):
        predict(predictor, [clip], out)
    assert 0 < len(lines_of(out)) == len(facts_of(out / "videos" / "clip.mp4")[0]) < 30


def test_a_signal_leaves_a_video_of_what_was_found_before_it(predictor, tmp_path, monkeypatch):
    predict_as_ever, calls = predictor.predict, iter(range(99))

    def predict_and_signal(*arguments, **options):
        if next(calls) == 1:
            signal.raise_signal(signal.SIGINT)
        return predict_as_ever(*arguments, **options)

    monkeypatch.setattr(predictor, "predict", predict_and_signal)
    out = tmp_path / "out"
    with pytest.raises(StoppedError, match="stopped by SIGINT after 3 frames") as stopped:
        predict(predictor, [write_video(tmp_path / "clip.mp4")], out)
    assert stopped.value.exit_code == 130
    assert len(json.loads((out / "detections.json").read_text())) == 3
    assert facts_of(out / "videos" / "clip.mp4")[0] == [0, 40, 80]


def test_a_full_disk_leaves_no_half_video(predictor, tmp_path, monkeypatch):
    def write(writer, picture, pts):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(VideoWriter, "write", write)
    out = tmp_path / "out"
    with pytest.raises(OutputError, match=r"No space left.*make room and begin anew"):
        predict(predictor, [write_video(tmp_path / "clip.mp4")], out)
    assert not list((out / "videos").iterdir())


def test_what_is_no_video_is_one_line(predictor, tmp_path):
    (tmp_path / "no.mp4").write_bytes(b"no video")
    with pytest.raises(DatasetError, match=r"no\.mp4: cannot be opened as a video \(Invalid data"):
        predict(predictor, [tmp_path / "no.mp4"], tmp_path / "out")
    with pytest.raises(
        DatasetError, match=r"none\.mp4: cannot be opened as a video \(No such file"
    ):
        predict(predictor, [tmp_path / "none.mp4"], tmp_path / "out")


def test_a_video_that_cannot_be_opened_costs_no_other(predictor, tmp_path):
    write_video(tmp_path / "clip.mp4", has_sound=False)
    sources = [str(tmp_path / "missing.mp4"), str(tmp_path / "clip.mp4")]
    with pytest.raises(DatasetError, match=r"missing\.mp4: cannot be opened"):
        predict(predictor, sources, tmp_path / "out")
    assert len(json.loads((tmp_path / "out" / "detections.json").read_text())) == len(TIMES)


def test_the_password_of_a_camera_is_written_nowhere(predictor, tmp_path, monkeypatch, caplog):
    clip, out = write_video(tmp_path / "clip.mp4", has_sound=False), tmp_path / "out"
    monkeypatch.setattr(video, "open_video", lambda _: open_video(str(clip)))
    predict(predictor, ["rtsp://me:secret@camera/1"], out)
    assert {line["file_name"] for line in lines_of(out)} == {"rtsp://me:***@camera/1"}
    written = [path for path in out.rglob("*") if path.is_file()]
    assert len(written) > 3
    assert not [path for path in written if b"secret" in path.read_bytes()]
    assert "secret" not in caplog.text


def test_a_camera_that_is_not_there_is_named_without_its_password():
    with (
        pytest.raises(DatasetError, match=r"^rtsp://me:\*\*\*@127.0.0.1:1/a: cannot be opened"),
        open_video("rtsp://me:secret@127.0.0.1:1/a"),
    ):
        pass


def test_where_pyav_is_missing_the_command_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with (
        pytest.raises(ConfigError, match=r"need PyAV: pip install 'dyhead-det\[video\]'"),
        open_video("clip.mp4"),
    ):
        pass


def test_files_of_single_images_and_the_input_itself_are_refused(predictor, tmp_path):
    with pytest.raises(ConfigError, match=r"--save yolo, crops: is for images"):
        predict(predictor, ["clip.mp4"], tmp_path, outputs=("yolo", "json", "crops"))
    with pytest.raises(ConfigError, match=r"clip\.mp4: would be overwritten"):
        predict(predictor, [tmp_path / "videos" / "clip.mp4"], tmp_path)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a/clip.MP4", True),
        ("rtsp://camera/1", True),
        ("https://host/live.m3u8", True),
        ("/dev/video0", True),
        ("a.jpg", False),
        ("mp4", False),
        ("videos/", False),
        ("-", False),
    ],
)
def test_videos_are_told_by_their_names(source, expected):
    assert is_video(source) is expected
