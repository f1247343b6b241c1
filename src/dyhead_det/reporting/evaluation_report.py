"""The report of an evaluation: one page, and the same as JSON, CSV and PNG files."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image
from torch import Tensor

from dyhead_det.data.coco.dataset import CocoDataset
from dyhead_det.data.images import read_image
from dyhead_det.data.stores.locate import open_store
from dyhead_det.data.stores.store import ImageFile, ImageLocation
from dyhead_det.errors import DatasetError
from dyhead_det.evaluation.analysis.analyze import Analysis
from dyhead_det.evaluation.analysis.curves import RECALLS, SCORES
from dyhead_det.evaluation.analysis.outcomes import Found
from dyhead_det.evaluation.coco_scores import EvalResult, decimal
from dyhead_det.evaluation.evaluate import write_json
from dyhead_det.evaluation.matching import IOU_THRESHOLDS
from dyhead_det.evaluation.speed import Speed
from dyhead_det.files import written_whole
from dyhead_det.reporting.evaluation_tables import (
    confusions,
    evaluation_tables,
    image_table,
)
from dyhead_det.reporting.page.page import Table, embedded, svg_element, write_page
from dyhead_det.tables import write_csv
from dyhead_det.visualize import evaluation_plots as plots
from dyhead_det.visualize.draw import Mark, draw_marks
from dyhead_det.visualize.sheet import STYLES, Kind, contact_sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

PAGE = "report.html"
_PICTURE_EDGE = 640  # pixels of a picture in the page
_MOST_CONFUSIONS = 15
# A full picture says enough by its boxes.
_MOST_CAPTIONS = 20


class ImagesById(NamedTuple):
    """Where the images of an evaluation are, by their ids in the evaluation.

    name: of an image. read: its pixels, (3, H, W) uint8; None where that fails.
    """

    name: Callable[[int], str]
    read: Callable[[int], Tensor | None]


class WorstPicture(NamedTuple):
    """An image with many errors: what is annotated, and what is detected."""

    title: str
    counts: str
    truth: Image.Image
    detected: Image.Image


def write_report(
    folder: Path, result: EvalResult, *, title: str, images: ImagesById | None = None
) -> None:
    """Write `report.html`, `analysis.json`, and tables and pictures by subject.

    Args:
        folder: for the files; it is there already.
        result: of an evaluation, with its analysis.
        title: of the page.
        images: to draw the worst ones; None where there are only numbers.

    Raises:
        ValueError: where there is no analysis.
    """
    analysis = result.analysis
    if analysis is None:
        raise ValueError("an evaluation without its analysis has no report")
    write_json(folder / "analysis.json", analysis.to_plain(), indent=None)
    tables = evaluation_tables(result, analysis)
    of_images = image_table(analysis, None if images is None else images.name)
    for name, table in {**tables, "images": of_images}.items():
        write_csv(folder / f"{name}.csv", *table)
    figures = _figures(result, analysis)
    for name, figure in figures.items():
        plots.save_png(figure, folder / f"{name}.png")
    worst = [] if images is None else list(_draw_worst(analysis, images))
    if worst:
        with written_whole(folder / "worst_images.png") as unfinished:
            _sheet(worst).save(unfinished, format="PNG")
    values = _values(result, analysis, tables, figures)
    write_page(folder / PAGE, "evaluation", {**values, "title": title, "worst": _embed(worst)})


def explain_in(folder: Path, *, title: str) -> Callable[[EvalResult, CocoDataset], None]:
    """Return what writes the report of an evaluation of a data set into a folder."""

    def explain(result: EvalResult, dataset: CocoDataset) -> None:
        data = dataset.annotations_path.name
        write_report(folder, result, title=f"{title} on {data}", images=images_of(dataset))

    return explain


def images_of(dataset: CocoDataset) -> ImagesById:
    """Return where the images of a data set are."""
    index_of = {int(image_id): index for index, image_id in enumerate(dataset.image_ids)}
    return ImagesById(
        lambda image_id: str(dataset.file_names[index_of[image_id]]),
        lambda image_id: _read(
            dataset.image_file(index_of[image_id]), dataset.size_wh(index_of[image_id])
        ),
    )


def images_in(location: ImageLocation | None, images: Sequence[Mapping[str, Any]]) -> ImagesById:
    """Return where the images of a results file are, by their file names.

    Args:
        location: as `open_store` takes it; None where there are only names.
        images: of the ground truth, with `id`, `original_id` and `file_name`.
    """
    names = {
        image["id"]: str(image["file_name"] or f"image {image['original_id']}") for image in images
    }

    store = None if location is None else open_store(location)

    def read(image_id: int) -> Tensor | None:
        return None if store is None else _read(store.file(names[image_id]), None)

    return ImagesById(names.__getitem__, read)


def _read(file: ImageFile, annotated_size: tuple[int, int] | None) -> Tensor | None:
    """Read an image; one that cannot be read is a warning."""
    try:
        return read_image(file, annotated_size=annotated_size)
    except DatasetError as error:
        logger.warning("left out: %s", error)
        return None


def _figures(result: EvalResult, analysis: Analysis) -> dict[str, "Figure"]:
    best, names = analysis.overall.best, analysis.class_names
    sizes = {"all": "AP", "small": "APs", "medium": "APm", "large": "APl"}
    return {
        "scores": plots.plot_score_curves(
            SCORES,
            analysis.overall.precision,
            analysis.overall.recall,
            analysis.overall.f1,
            None if best is None else (best.min_score, best.f1),
        ),
        "precision_recall": plots.plot_precision_recall(
            RECALLS,
            {
                iou: {names[label]: curve for label, curve in curves.items()}
                for iou, curves in analysis.precision_at_recall.items()
            },
        ),
        "errors": plots.plot_bars(dict(analysis.errors.gains.items()), axis="AP50 gained"),
        "confusion": plots.plot_confusion(
            analysis.confusion, names, iou=IOU_THRESHOLDS[0], min_score=analysis.min_score
        ),
        "sizes": plots.plot_bars(
            {name: result.metrics[metric] for name, metric in sizes.items()},
            axis="AP",
            title="by the size of objects",
        ),
        "crowding": plots.plot_bars(
            {group.name: group.AP for group in analysis.crowding},
            axis="AP",
            title="by the number of objects in an image",
        ),
        "calibration": plots.plot_calibration(
            analysis.calibration.counts,
            analysis.calibration.scores,
            analysis.calibration.shares_right,
            analysis.calibration.error,
        ),
    }


def _values(
    result: EvalResult,
    analysis: Analysis,
    tables: Mapping[str, Table],
    figures: Mapping[str, "Figure"],
) -> dict[str, object]:
    """Return what the template names, but for title and worst images."""
    best = analysis.overall.best
    cards = [(name, decimal(result.metrics[name])) for name in ("AP", "AP50", "AP75")]
    if best is not None:
        cards += [
            ("highest F1", decimal(best.f1)),
            ("from score", decimal(best.min_score)),
            ("precision there", decimal(best.precision)),
            ("recall there", decimal(best.recall)),
        ]
    metrics = list(result.metrics.items())
    return {
        "subtitle": f"{result.num_boxes} objects in {result.num_images} images, "
        f"{result.num_detections} detections; numbers by {result.backend}",
        "notes": result.notes,
        "cards": cards,
        "numbers": Table([name for name, _ in metrics], [[decimal(value) for _, value in metrics]]),
        "classes": tables["classes"],
        "errors": tables["errors"],
        "errors_by_class": tables["errors_by_class"] if len(analysis.class_names) > 1 else None,
        "confusions": confusions(analysis, most=_MOST_CONFUSIONS),
        "crowding": tables["crowding"],
        "plots": {name: svg_element(plots.to_svg(figure)) for name, figure in figures.items()},
        "speed": None if result.speed is None else _speed(result.speed),
        "speed_note": "" if result.speed is None else _speed_note(result.speed),
        "min_score": analysis.min_score,
        "styles": list(STYLES.values()),
    }


def _speed(speed: Speed) -> Table:
    """Return the milliseconds of an image in each stage."""
    stages = {
        "decode (waited for)": speed.decode,
        "preprocess": speed.preprocess,
        "model": speed.model,
        "postprocess": speed.postprocess,
        "all": speed.total,
    }
    return Table(
        ("stage", "ms per image", "share"),
        [
            (name, f"{value:.1f}", f"{value / max(speed.total, 1e-9):.0%}")
            for name, value in stages.items()
        ],
    )


def _speed_note(speed: Speed) -> str:
    return (
        f"Means over {speed.num_images} images, {speed.batch_size:.3g} at a time, without the "
        "first batch. Decode is the waiting for images: other processes may decode them meanwhile. "
        "Preprocess brings them to the device and resizes them; postprocess ends with boxes "
        "on the CPU."
    )


def _draw_worst(analysis: Analysis, images: ImagesById) -> Iterator[WorstPicture]:
    """Draw the worst images; those that cannot be read are left out."""
    names = analysis.class_names
    for each in analysis.worst:
        pixels = images.read(each.image_id)
        if pixels is None:
            continue
        num_found = sum(found.is_right for found in each.objects)
        num_false = sum(not found.is_right for found in each.detections)
        pairs: tuple[tuple[Sequence[Found], Kind], ...] = (
            (each.objects, "missed"),
            (each.detections, "false"),
        )
        yield WorstPicture(
            images.name(each.image_id),
            f"{num_found} of {len(each.objects)} objects found, {num_false} false detections",
            *(
                draw_marks(pixels, _marks(found, names, otherwise), longer_edge=_PICTURE_EDGE)
                for found, otherwise in pairs
            ),
        )


def _marks(found: Sequence[Found], names: Sequence[str], otherwise: Kind) -> list[Mark]:
    """Return boxes as they are drawn, what went wrong on top; of many only these have captions."""
    marks = []
    for each in sorted(found, key=lambda one: one.is_right):
        style = STYLES["hit" if each.is_right else otherwise]
        score = "" if each.score is None else f" {each.score:.0%}"
        has_caption = len(found) <= _MOST_CAPTIONS or not each.is_right
        caption = f"{names[each.label]}{score}" if has_caption else ""
        marks.append(Mark(each.box, caption, style.color, style.is_dashed))
    return marks


def _sheet(worst: Sequence[WorstPicture]) -> Image.Image:
    """Lay out the pictures, what is annotated beside what is detected."""
    pictures = [picture for each in worst for picture in (each.truth, each.detected)]
    titles = [
        title
        for each in worst
        for title in (f"annotated: {each.title}", f"detected: {each.counts}")
    ]
    return contact_sheet(pictures, titles, columns=2, tile=_PICTURE_EDGE)


def _embed(worst: Sequence[WorstPicture]) -> list[dict[str, str]]:
    return [
        {
            "title": each.title,
            "counts": each.counts,
            "truth": embedded(each.truth, longer_edge=_PICTURE_EDGE),
            "detected": embedded(each.detected, longer_edge=_PICTURE_EDGE),
        }
        for each in worst
    ]
