"""Files of `torch.save`: an archive or the old sequence of pickles; opened and checked, not run.

`torch.load` is not asked, even with `weights_only`: it does not compare checksums, takes the sizes
in old files on trust, and a tuple that is nested deeply enough ends the process.
"""

import io
import pickle
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from dyhead_det.checkpoints.restricted_pickle import RestrictedUnpickler

MAX_PICKLE_BYTES = 1 << 26
"""Of an archive's pickle, which holds no tensors; one of a trained model has some 100 kB."""

# What `zipfile` raises for one or the other wrong byte, besides its own error.
DAMAGES = (
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    EOFError,
    RuntimeError,  # NotImplementedError too
    ValueError,
)

# The old format begins with the pickle of PyTorch's own number.
OLD_FORMAT_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_OLD_FORMAT_VERSION = 1001


def find_damage(path: Path) -> str | None:
    """Compare what an archive of PyTorch holds with its checksums.

    Returns:
        What is wrong, a missing file included; None where nothing is.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            member = archive.testzip()
    except PermissionError:
        return None
    except DAMAGES as error:
        return str(error)
    return None if member is None else f"the checksum of {member} does not fit"


def read_archive(file: BinaryIO) -> object:
    """Read an archive of `torch.save`.

    Args:
        file: Kept open until its tensors are taken.

    Returns:
        Plain values with descriptions of tensors and placeholders, see `pickled_values`.

    Raises:
        pickle.UnpicklingError: If it holds what no file of weights holds.
    """
    storages = _Archive(file)
    return RestrictedUnpickler(io.BytesIO(storages.main_pickle()), storages).load()


class _Archive:
    """Reads storages from the members `<name>/data/<key>`, each with its checksum."""

    def __init__(self, file: BinaryIO) -> None:
        self._archive = zipfile.ZipFile(file)
        self._members = {member.filename: member for member in self._archive.infolist()}
        self._storages: dict[str, Tensor] = {}
        size = file.seek(0, io.SEEK_END)
        self._check(size)
        mains = [name for name in self._members if name.endswith("/data.pkl")]
        if len(mains) != 1 or mains[0].count("/") != 1:
            raise pickle.UnpicklingError("an archive, but none of torch.save: it has no data.pkl")
        self._folder = mains[0].removesuffix("data.pkl")

    def _check(self, size: int) -> None:
        members = self._archive.infolist()
        if any(member.filename.endswith("/constants.pkl") for member in members):
            raise pickle.UnpicklingError("a TorchScript program; wanted is a file of weights")
        if len(self._members) < len(members):
            raise pickle.UnpicklingError("an archive with two members of one name")
        for member in members:
            if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
                raise pickle.UnpicklingError(
                    "an archive that is compressed or encrypted, which torch.save's are not"
                )
        if sum(member.file_size for member in members) > size:
            raise pickle.UnpicklingError("an archive whose members are larger than the file")

    def main_pickle(self) -> bytes:
        """Return the pickle of all that is no tensor."""
        order = self._members.get(f"{self._folder}byteorder")
        if order is not None and self._archive.read(order) != b"little":
            raise pickle.UnpicklingError("written on a machine with another order of bytes")
        main = self._members[f"{self._folder}data.pkl"]
        if main.file_size > MAX_PICKLE_BYTES:
            raise pickle.UnpicklingError(f"its data.pkl has {main.file_size} bytes")
        return self._archive.read(main)

    def storage(self, key: str) -> Tensor:
        """Return the bytes of a storage."""
        if key not in self._storages:
            member = self._members.get(f"{self._folder}data/{key}")
            if member is None:
                raise pickle.UnpicklingError("a tensor without its storage")
            self._storages[key] = _as_bytes(bytearray(self._archive.read(member)))
        return self._storages[key]


def read_old_format(file: BinaryIO) -> object:
    """Read what `torch.save` wrote before there were archives, and still does when asked.

    Returns:
        As `read_archive`.

    Raises:
        pickle.UnpicklingError: If it is another file.
    """
    RestrictedUnpickler(file).load()  # the magic number, which the caller has seen
    if RestrictedUnpickler(file).load() != _OLD_FORMAT_VERSION:
        raise pickle.UnpicklingError("another version of the old format")
    system = RestrictedUnpickler(file).load()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise pickle.UnpicklingError("written on a machine with another order of bytes")
    storages = _StoragesAtTheEnd()
    unpickler = RestrictedUnpickler(file, storages)
    content = unpickler.load()
    storages.read(file, unpickler.element_sizes)
    return content


class _StoragesAtTheEnd:
    """Reads storages behind the pickles: the list of keys, then a size and the bytes of each."""

    def __init__(self) -> None:
        self._storages: dict[str, Tensor] = {}

    def read(self, file: BinaryIO, element_sizes: dict[str, int]) -> None:
        keys = RestrictedUnpickler(file).load()
        if not isinstance(keys, list):
            raise pickle.UnpicklingError("no list of storages")
        for key in keys:
            if not isinstance(key, str) or key not in element_sizes or key in self._storages:
                raise pickle.UnpicklingError("a storage that no tensor has, or two have")
            num_bytes = int.from_bytes(file.read(8), "little") * element_sizes[key]
            start = file.tell()
            remaining = file.seek(0, io.SEEK_END) - start
            file.seek(start)
            if num_bytes > remaining:
                raise EOFError("the file is cut short")
            self._storages[key] = _as_bytes(bytearray(file.read(num_bytes)))

    def storage(self, key: str) -> Tensor:
        """Return the bytes of a storage."""
        if key not in self._storages:
            raise pickle.UnpicklingError("a tensor without its storage")
        return self._storages[key]


def _as_bytes(content: bytearray) -> Tensor:
    if not content:
        return torch.empty(0, dtype=torch.uint8)
    return torch.frombuffer(content, dtype=torch.uint8)
