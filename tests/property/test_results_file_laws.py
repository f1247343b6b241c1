"""Whatever a results or an annotation file holds, it is scored or refused in one line."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dyhead_det.errors import DyHeadDetError
from dyhead_det.evaluation.results_file import evaluate_results

TRUTH = {
    "images": [{"id": 4}, {"id": 9}],
    "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
    "annotations": [
        {"id": 1, "image_id": 4, "category_id": 7, "bbox": [10, 10, 20, 20], "area": 400},
        {"id": 2, "image_id": 9, "category_id": 7, "bbox": [0, 0, 50, 40.5], "iscrowd": 0},
        {"id": 3, "image_id": 9, "category_id": 3, "bbox": [5, 5, 200, 300], "iscrowd": 1},
    ],
}
RESULTS = [
    {"image_id": 4, "category_id": 7, "bbox": [11.5, 9, 20, 21], "score": 0.5},
    {"image_id": 9, "category_id": 7, "bbox": [0, 1, 50, 40], "score": 0.25},
    {"image_id": 9, "category_id": 3, "bbox": [5, 5, 200, 300], "score": 1},
]

numbers = st.one_of(
    st.integers(-3, 12),
    st.sampled_from([2**31, 2**63, -(2**64), 10**400, 1e308, -1e-320, 0.5, 7.0]),
    st.floats(),
)
# Hypothesis draws lone surrogates only where it is asked to; JSON can hold them.
texts = st.text(st.characters(exclude_categories=[]), max_size=4)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=8,
)


def paths_of(value, path=()):
    """Return the way to every value in a JSON document, the document itself included."""
    if not isinstance(value, dict | list):
        return [path]
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    return [path, *(deeper for key, v in inside for deeper in paths_of(v, (*path, key)))]


@st.composite
def mutated(draw, document):
    """Replace, drop or repeat one to three values of a document; or break its text."""
    changed = json.loads(json.dumps(document))
    for _ in range(draw(st.integers(1, 3))):
        if not isinstance(changed, dict | list):
            break
        path = draw(st.sampled_from(paths_of(changed)))
        if not path:
            changed = draw(values)
            continue
        parent = changed
        for key in path[:-1]:
            parent = parent[key]
        match draw(st.sampled_from(["replace", "drop", "repeat"])):
            case "replace":
                parent[path[-1]] = draw(values)
            case "drop":
                del parent[path[-1]]
            case "repeat" if isinstance(parent, list):
                parent.append(parent[path[-1]])
    text = json.dumps(changed).encode()
    if draw(st.integers(0, 9)) == 0:
        position = draw(st.integers(0, len(text)))
        text = text[:position] + draw(st.binary(max_size=3)) + text[position + 1 :]
    return text


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


def is_scored_or_refused(folder, results, truth):
    (folder / "results.json").write_bytes(results)
    (folder / "truth.json").write_bytes(truth)
    try:
        result = evaluate_results(
            folder / "results.json", folder / "truth.json", backend="pycocotools"
        )
    except DyHeadDetError as error:
        controls = [c for c in str(error) if unicodedata.category(c) in ("Cc", "Cf", "Cs")]
        return not controls
    is_number = [value is None or 0 <= value <= 1 + 1e-12 for value in result.metrics.values()]
    return all(is_number)


@given(mutated(RESULTS))
def test_a_changed_results_file_is_scored_or_refused(folder, results):
    assert is_scored_or_refused(folder, results, json.dumps(TRUTH).encode())


@given(mutated(TRUTH))
def test_a_changed_annotation_file_is_scored_or_refused(folder, truth):
    assert is_scored_or_refused(folder, json.dumps(RESULTS).encode(), truth)
