"""What the command line reads and writes: headers, images, and the arrays of `infer`."""

import base64
import json
import os
import stat
import sys
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from clients.core.metadata import ModelMetadata, TensorMetadata
from clients.core.tensors import Arrays, numpy_type
from clients.errors import InvalidInputError

_SUFFIXES = (".png", ".jpg", ".jpeg")
STDIN = "-"
_ZIP = b"PK\x03\x04"
_LISTED = 10  # arrays that an error names


def read_headers(path: Path) -> dict[str, str]:
    """One `name: value` per line.

    Raises:
        InvalidInputError: it is not that.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"cannot read the headers in {path}: {error}") from error
    headers = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, colon, value = line.partition(":")
        if not (colon and name.strip()):
            raise InvalidInputError(f"{path}, line {number}: not a header", hint="as in authorization: Bearer …")
        headers[name.strip().lower()] = value.strip()
    return headers


def image_files(paths: Sequence[str]) -> Iterator[Path]:
    """Files that were named, whatever their suffix, and the images in folders that were.

    Raises:
        InvalidInputError: there is no such file, or a folder has no images.
    """
    for path in map(Path, paths):
        try:
            kind = path.stat().st_mode if str(path) != STDIN else 0
        except OSError as error:
            raise InvalidInputError(f"cannot read {path}: {error.strerror}") from error
        if not stat.S_ISDIR(kind):
            yield path
            continue
        found = sorted(_images_in(path))
        if not found:
            raise InvalidInputError(f"{path} has no {', '.join(_SUFFIXES)} files")
        yield from found


def _images_in(folder: Path) -> Iterator[Path]:
    """Also through symbolic links, each folder once; and folders that cannot be read, for reading them to say why."""
    unreadable, seen = list[Path](), set[tuple[int, int]]()

    def note(error: OSError) -> None:
        unreadable.append(Path(error.filename))

    for name, folders, files in os.walk(folder, onerror=note, followlinks=True):
        status = Path(name).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        # Links last: under which of two names an image is found is not to depend on the order in the directory.
        folders.sort(key=lambda inner: (Path(name, inner).is_symlink(), inner))
        found = (Path(name, file) for file in files)
        yield from (path for path in found if path.suffix.lower() in _SUFFIXES and _may_be_read(path))
    yield from unreadable


def _may_be_read(path: Path) -> bool:
    """Not a pipe, which would be waited for."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True  # reading it says why not


def read_inputs(named: Sequence[str], metadata: ModelMetadata) -> dict[str, Any]:
    """Arrays of the model's types, from NAME=JSON, NAME=@FILE, or an object of all on standard input.

    Raises:
        InvalidInputError: it is not that.
    """
    tensors = {tensor.name: tensor for tensor in metadata.inputs}
    if not named:
        if sys.stdin.isatty():
            print("Reading a JSON object of all inputs from standard input, up to Ctrl-D", file=sys.stderr)
        try:
            values = dict(json.load(sys.stdin))
        except (ValueError, TypeError, RecursionError) as error:
            raise InvalidInputError(
                f"standard input is not a JSON object: {error}", hint='as in {"pixels": [[0, 1]]}, or use --input'
            ) from error
        return {name: array_of(value, tensors.get(name)) for name, value in values.items()}
    inputs = {}
    for text in named:
        name, equals, value = text.partition("=")
        if not equals:
            raise InvalidInputError(f"--input {text} is not NAME=VALUE")
        tensor = tensors.get(name)
        if value.startswith("@"):
            inputs[name] = _from_file(Path(value[1:]), tensor)
            continue
        try:
            inputs[name] = array_of(json.loads(value), tensor)
        except (ValueError, RecursionError) as error:
            raise InvalidInputError(f"--input {name}: {error}", hint="JSON, or @FILE") from error
    return inputs


def _from_file(path: Path, tensor: TensorMetadata | None) -> Any:
    try:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False)
        content = path.read_bytes()
        if content.startswith(_ZIP) and (path.suffix == ".npz" or not (tensor and tensor.datatype == "BYTES")):
            raise _not_one_array(path, tensor)
    except InvalidInputError:
        raise
    except Exception as error:  # of numpy, which trusts what it reads
        raise InvalidInputError(f"cannot read {path}: {error}") from error
    return np.array([content], dtype=np.object_).reshape([1] * (len(tensor.shape) if tensor else 1))


def _not_one_array(path: Path, tensor: TensorMetadata | None) -> InvalidInputError:
    """Say what an archive of arrays holds where one array is meant."""
    with zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
    wanted = tensor.name if tensor and tensor.name in names else names[0] if names else "NAME"
    return InvalidInputError(
        f"{path} is an archive of arrays (.npz), and an input is one array (.npy)",
        note=f"it holds {', '.join(names[:_LISTED]) or 'nothing'}",
        hint=f"numpy.save('{wanted}.npy', numpy.load('{path}')['{wanted}'][:1]), then @{wanted}.npy",
    )


def array_of(value: Any, tensor: TensorMetadata | None) -> Any:
    """Of the model's dtype: JSON has one kind of number.

    Raises:
        InvalidInputError: a number is not one of that type, or would become infinite.
    """
    if tensor is None or tensor.datatype == "BYTES":
        return np.asarray(value, dtype=np.object_)
    try:
        given = np.asarray(value)
    except ValueError as error:
        raise InvalidInputError(f"{tensor.name}: {error}", hint="JSON, with rows of the same length") from error
    if given.dtype.kind in "biuf":
        with suppress(OverflowError), np.errstate(over="ignore", invalid="ignore"):
            array = given.astype(numpy_type(tensor.datatype), casting="unsafe")
            if array.dtype.kind in "biu":
                same = np.array_equal(array, given)
            else:  # rounded, but not to infinity
                same = np.array_equal(np.isfinite(array), np.isfinite(given))
            if same:
                return array
    raise InvalidInputError(f"{tensor.name}: not every value is a {tensor.datatype}")


def save(path: Path, outputs: Arrays) -> None:
    """As .npz.

    Raises:
        InvalidInputError: it cannot be written, or an output cannot be an array of numpy's.
    """
    arrays = {name: _as_numpy(name, array) for name, array in outputs.items()}
    try:
        with zipfile.ZipFile(path, "w") as archive:  # np.savez has names of its own, which an output may have, too
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, array, allow_pickle=False)
    except OSError as error:
        raise InvalidInputError(f"cannot write {path}: {error.strerror}") from error


def _as_numpy(name: str, array: Any) -> Any:
    """Strings in numpy's own dtype, as arrays of objects would be pickled; BF16, which it does not know, as FP32."""
    if array.dtype.kind == "V":
        return array.astype(np.float32)
    if array.dtype != np.object_:
        return array
    if any(item.endswith(b"\0") for item in array.ravel()):
        raise InvalidInputError(f"{name} ends with zero bytes, which numpy would drop", hint="leave --save away")
    return array.astype(np.bytes_)


def as_json(array: Any) -> Any:
    """Bytes that are not text are {"b64": …}."""
    if array.dtype != np.object_:
        return array.tolist()
    flat = np.empty(array.size, np.object_)
    for i, item in enumerate(array.ravel()):
        try:
            flat[i] = item.decode()
        except UnicodeDecodeError:
            flat[i] = {"b64": base64.b64encode(item).decode()}
    return flat.reshape(array.shape).tolist()
