"""Pages: what comes from data is text, pictures are inside."""

import base64
import io

from PIL import Image

from dyhead_det.reporting.page import page
from dyhead_det.reporting.page.page import embedded, embedded_png


def opened(uri):
    kind, _, data = uri.partition(";base64,")
    return kind, Image.open(io.BytesIO(base64.b64decode(data)))


def test_photographs_are_made_smaller_and_small_ones_stay():
    for size, expected in (((400, 200), (100, 50)), ((40, 20), (40, 20))):
        kind, picture = opened(embedded(Image.new("RGBA", size), longer_edge=100))
        assert (kind, picture.size) == ("data:image/jpeg", expected)


def test_png_files_come_as_they_are(tmp_path):
    Image.new("RGB", (7, 5), "red").save(tmp_path / "a.png")
    kind, picture = opened(embedded_png(tmp_path / "a.png"))
    assert (kind, picture.size, picture.getpixel((0, 0))) == ("data:image/png", (7, 5), (255, 0, 0))


def test_columns_of_numbers_stand_to_the_right_and_their_headers_too():
    template = '{% from "macros.html" import table %}{{ table(header, rows) }}'
    rows = [("cat", 7, "0.500", "what a cat is"), ("dog", 12, "-", "a dog")]
    html = (
        page._environment()
        .from_string(template)
        .render(header=("class", "n", "AP", "what"), rows=rows)
    )
    header, *lines = [line for line in html.splitlines() if line.startswith(("<thead>", "<tr>"))]
    assert [cell.startswith(' class="number"') for cell in header.split("<th")[2:]] == [
        *(False, True, True, False)
    ]
    for line in lines:
        assert [cell.startswith(' class="number"') for cell in line.split("<td")[1:]] == [
            *(False, True, True, False)
        ]
