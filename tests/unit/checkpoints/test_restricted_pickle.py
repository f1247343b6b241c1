"""Pickles that were made to do harm: each gadget ends as a placeholder or in one line.

Every case is run in this process; what it did before is said beside it.
"""

import io
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import pytest
import torch

from dyhead_det.checkpoints import pickled_values, restricted_pickle, weight_files
from dyhead_det.checkpoints.pickled_values import Placeholder
from dyhead_det.checkpoints.restricted_pickle import RestrictedUnpickler
from dyhead_det.checkpoints.weight_files import named_tensors, read_weight_file
from dyhead_det.errors import CheckpointError


def text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def number(value: int) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + b"(" + b"".join(arguments) + b"tR"


def dictionary(**items: bytes) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def state_dict(weight: bytes, before: bytes = b"") -> bytes:
    return b"\x80\x02" + before + dictionary(model=dictionary(w=weight)) + b"."


DTYPE = name("numpy", "dtype")
RECONSTRUCT = name("numpy.core.multiarray", "_reconstruct")
NDARRAY = name("numpy", "ndarray")


def dtype(code: str, state: bytes = b"") -> bytes:
    return call(DTYPE, text(code), b"\x89", b"\x88") + state


def array(shape: bytes, dtype_pickle: bytes, content: bytes, *, items: bytes = b"") -> bytes:
    empty = call(RECONSTRUCT, NDARRAY, b"(" + number(0) + b"t", text("b"))
    state = b"(" + number(1) + shape + dtype_pickle + b"\x89" + content + b"t"
    return empty + state + b"b" + items


def raw(content: bytes) -> bytes:
    return b"T" + struct.pack("<i", len(content)) + content


# A dtype of objects with the flags of a dtype of numbers: numpy took bytes for pointers.
FORGED = dtype("O8", b"(" + number(3) + text("|") + b"NNN" + number(8) * 2 + number(0) + b"tb")
POINTERS = raw(b"\x41" * 16)
TWO, ONE = b"(" + number(2) + b"t", b"(" + number(1) + b"t"

GADGETS = {
    "an array of objects over bytes of the file": array(TWO, FORGED, POINTERS),
    "an item put into such an array": array(TWO, FORGED, POINTERS, items=number(0) + b"Ns"),
    "items put into an array of numbers": array(
        TWO, dtype("f4"), raw(bytes(8)), items=b"(" + number(0) + b"Nu"
    ),
    "an item appended to an array": array(TWO, dtype("f4"), raw(bytes(8)), items=b"Na"),
    "a structured dtype": array(ONE, dtype("V8"), raw(bytes(8))),
    "a dtype of dates": array(ONE, dtype("M8"), raw(bytes(8))),
    "an array of a million millions": call(RECONSTRUCT, NDARRAY, b"(" + number(2**40) + b"t", b"N"),
    "ndarray called by its name, over a buffer": call(NDARRAY, b"(" + number(2**40) + b"t"),
    "numpy's loader of files": call(name("numpy", "load"), text("/etc/passwd")),
    "a state set on a name": name("collections", "OrderedDict") + dictionary(__init__=b"N") + b"b",
    "a state set on a function of ours": name("_codecs", "encode")
    + b"(N"
    + dictionary(__defaults__=b"N", __code__=b"N")
    + b"tb",
    "a state set on a list": b"](N" + dictionary(append=b"N") + b"tb",
    "an object of an old class": b"(" + name("os", "system") + text("false") + b"o",
    "a call with keywords": name("builtins", "dict") + b")}\x92",
    "the shell": call(name("os", "system"), text("exit 1")),
    "another program's import": call(name("builtins", "__import__"), text("antigravity")),
    "an attribute by way of a name with dots": b"\x8c\x02os\x8c\x0bpath.exists\x93)R",
    "a memo of 64 GB": b"Nr\xff\xff\xff\xff",
    "an array of bytes of 2^62": b"\x96" + struct.pack("<Q", 2**62),
    "a text of 2^62": b"\x8d" + struct.pack("<Q", 2**62),
    "a frame of 2^62": b"\x95" + struct.pack("<Q", 2**62),
    "an extension code": b"\x82\x01",
    "a tuple deep enough to end the process, as a key": b"}" + b")" + b"\x85" * 100_000 + b"Ns",
    "a tuple as deep, in a set": b"\x8f(" + b")" + b"\x85" * 100_000 + b"\x90",
    "bytes in another encoding": call(name("_codecs", "encode"), text("x"), text("bz2")),
    "a list in itself": b"]q\x01h\x01a",
    "a storage outside an archive": b"("
    + text("storage")
    + name("torch", "FloatStorage")
    + text("0")
    + text("cpu")
    + number(2**40)
    + b"tQ",
}


@pytest.mark.parametrize("gadget", GADGETS.values(), ids=GADGETS)
def test_a_gadget_does_nothing_and_gives_no_weights(tmp_path, gadget):
    path = tmp_path / "x.pkl"
    path.write_bytes(state_dict(gadget))
    tensors, problem = {}, None
    try:
        tensors = named_tensors(read_weight_file(path))
    except CheckpointError as error:
        problem = str(error)
    assert problem is None or problem.startswith(f"{path}: damaged, or no file of weights (")
    assert problem is None or problem.isprintable()
    assert not tensors or tensors["w"].tolist() == [0.0, 0.0]  # what was in the array's own bytes


def test_names_are_names_whatever_they_are_called():
    found = RestrictedUnpickler(io.BytesIO(b"\x80\x02" + name("os", "system") + b".")).load()
    assert type(found).__name__ == "Global"
    assert not callable(found)
    found = RestrictedUnpickler(
        io.BytesIO(b"\x80\x02" + call(name("os", "system"), text("x")) + b".")
    ).load()
    assert isinstance(found, Placeholder)


def test_nothing_that_a_pickle_gets_hold_of_has_a_dictionary_of_its_own():
    module = pickled_values
    own = [
        module.Placeholder,
        module.Global,
        module.Storage,
        module.PickledTensor,
        module.PickledDtype,
        module.PickledArray,
    ]
    assert all("__dict__" not in dir(each) for each in own)
    assert not any(hasattr(each, special) for each in own for special in ("__setitem__", "append"))


@pytest.mark.parametrize("code", ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_arrays_of_numbers_are_read_in_either_order_of_bytes(tmp_path, code, order):
    values = np.array([[0, 1], [1, 0], [1, 1]]).astype(np.dtype(code).newbyteorder(order))
    path = tmp_path / "x.pkl"
    for protocol in (2, 5):
        path.write_bytes(pickle.dumps({"w": values, "t": values.T}, protocol=protocol))
        tensors = named_tensors(read_weight_file(path))
        assert tensors["w"].tolist() == values.tolist()
        assert tensors["t"].tolist() == values.T.tolist()


@pytest.mark.parametrize(
    ("shape", "content"), [(b"(" + number(2**40) + b"t", bytes(8)), (TWO, bytes(9))]
)
def test_an_array_whose_bytes_do_not_fit_is_refused(tmp_path, shape, content):
    path = tmp_path / "x.pkl"
    path.write_bytes(state_dict(array(shape, dtype("f4"), raw(content))))
    with pytest.raises(CheckpointError, match=r"an array of \(.*\) has \d bytes"):
        read_weight_file(path)


# --- archives -----------------------------------------------------------------------------------


def storage(num_elements: int, kind: str = "FloatStorage") -> bytes:
    fields = text("storage") + name("torch", kind) + text("0") + text("cpu") + number(num_elements)
    return b"(" + fields + b"tQ"


def tensor(num_stored: int, offset: int, shape: tuple, strides: tuple, **kind: str) -> bytes:
    function = name("torch._utils", "_rebuild_tensor_v2")
    sizes = [b"(" + b"".join(map(number, each)) + b"t" for each in (shape, strides)]
    return call(function, storage(num_stored, **kind), number(offset), *sizes, b"\x89", b"N")


def archive(path, main: bytes, *, data: bytes = bytes(16), compression=zipfile.ZIP_STORED, **more):
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("x/data.pkl", main)
        file.writestr("x/byteorder", more.pop("byteorder", "little"))
        file.writestr("x/data/0", data)
        for member, content in more.items():
            file.writestr(f"x/{member}", content)
    return path


@pytest.mark.parametrize(
    ("weight", "problem"),
    [
        (tensor(4, 0, (5,), (1,)), r"shape \(5,\) does not lie in its 4 numbers"),
        (tensor(4, 2, (3,), (1,)), r"shape \(3,\) does not lie in its 4 numbers"),
        (tensor(4, 0, (2, 2), (9, 1)), r"shape \(2, 2\) does not lie in its 4 numbers"),
        (tensor(4, 0, (2**40,), (0,)), r"shape \(1099511627776,\) does not lie"),
        (tensor(2**40, 0, (4,), (1,)), "storage 0 has 16 bytes, not 1099511627776 numbers"),
        (tensor(4, 0, (4,), (1,), kind="DoubleStorage"), "storage 0 has 16 bytes, not 4 numbers"),
    ],
)
def test_a_tensor_that_does_not_lie_in_its_storage_is_refused(tmp_path, weight, problem):
    path = archive(tmp_path / "x.pt", state_dict(weight))
    with pytest.raises(CheckpointError, match=problem):
        read_weight_file(path)


def test_a_tensor_of_an_odd_kind_is_no_tensor(tmp_path):
    odd = tensor(4, 0, (2,), (1,), kind="ComplexFloatStorage")
    path = archive(tmp_path / "x.pt", state_dict(odd))
    assert named_tensors(read_weight_file(path)) == {}
    assert (
        named_tensors(read_weight_file(archive(path, state_dict(tensor(4, -1, (2,), (1,)))))) == {}
    )


def big(shape: tuple) -> bytes:
    return state_dict(tensor(4, 0, shape, (1,) * len(shape)))


@pytest.mark.parametrize(
    ("build", "problem"),
    [
        (lambda p: archive(p, big((4,)), compression=zipfile.ZIP_DEFLATED), "compressed or encr"),
        (lambda p: archive(p, big((4,)), **{"data.pkl": b""}), "two members of one name"),
        (lambda p: archive(p, big((4,)), **{"constants.pkl": b""}), "a TorchScript program"),
        (lambda p: archive(p, big((4,)), byteorder="big"), "another order of bytes"),
        (lambda p: archive(p, b"\x80\x02" + b"N0" * 600 + b"N."), "more than 1000 operations"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_that_torch_save_does_not_write_is_refused(
    tmp_path, build, problem, monkeypatch
):
    monkeypatch.setattr(restricted_pickle, "MAX_OPERATIONS", 1000)
    path = build(tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=problem):
        read_weight_file(path)


def test_members_that_overlap_are_refused(tmp_path):
    path = archive(tmp_path / "x.pt", state_dict(tensor(4, 0, (4,), (1,))), data=bytes(4096))
    with zipfile.ZipFile(path, "a") as file:
        template = file.getinfo("x/data/0")
        for index in range(9):  # the same bytes under other names
            copy = zipfile.ZipInfo(f"x/data/{index + 1}")
            copy.header_offset, copy.CRC = template.header_offset, template.CRC
            copy.file_size = copy.compress_size = template.file_size
            file.filelist.append(copy)
            file.NameToInfo[copy.filename] = copy
        file._didModify = True
    with pytest.raises(CheckpointError, match="members are larger than the file"):
        read_weight_file(path)


def test_values_repeated_by_reference_are_counted_as_often_as_used(tmp_path, monkeypatch):
    monkeypatch.setattr(weight_files, "MAX_VALUES", 10_000)
    # Twenty lists, each of ten times the one before: 10^20 values in 500 bytes.
    levels = b"".join(
        b"](" + b"h" + bytes([n]) + (b"h" + bytes([n])) * 9 + b"eq" + bytes([n + 1])
        for n in range(1, 20)
    )
    path = tmp_path / "x.pkl"
    path.write_bytes(b"\x80\x02Nq\x01" + levels + b".")
    with pytest.raises(CheckpointError, match="more than 10000 values, repeated ones counted"):
        read_weight_file(path)


def test_values_nested_deeply_are_refused(tmp_path):
    path = tmp_path / "x.pkl"
    path.write_bytes(b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b".")
    with pytest.raises(CheckpointError, match="nested deeper than 32 levels"):
        read_weight_file(path)


def test_a_tar_file_is_refused(tmp_path):
    with tarfile.open(tmp_path / "x.pt", "w") as file:
        file.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    with pytest.raises(CheckpointError, match="no PyTorch file"):
        read_weight_file(tmp_path / "x.pt")


@pytest.mark.parametrize("keys", [b"]" + text("1") + b"a", b"]" + text("0") * 1 + b"aNa", b"N"])
def test_the_old_format_is_checked_too(tmp_path, keys):
    start = io.BytesIO()
    torch.save({}, start, _use_new_zipfile_serialization=False)
    head = start.getvalue().split(b"little_endian")[0]
    system = b"little_endian" + start.getvalue().split(b"little_endian")[1].split(b".")[0] + b"."
    main = state_dict(tensor(4, 0, (4,), (1,)).replace(b"tQ", b"NtQ", 1))
    content = head + system + main + b"\x80\x02" + keys + b"." + struct.pack("<q", 2**40)
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged, or no file of weights"):
        read_weight_file(tmp_path / "x.pt")
