"""Plain numbers that an HDF5 file itself stores, where the file may come from elsewhere.

HDF5 follows links to other files, loads libraries for filters, and allocates any shape that a
header claims. So each array is checked before it is read.
"""

import math
from typing import Any

import h5py
from h5py import h5d, h5z
from numpy.typing import NDArray

FILTERS = {h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32, h5z.FILTER_LZF}
KINDS = "biufS"  # bool, numbers, strings of one length
LARGEST_CHUNK = 2**28  # bytes that HDF5 unpacks at once; a damaged file may ask for any number
LARGEST_ATTRIBUTE = 2**20  # bytes: 150 classes of 6,000 characters


def own_array(group: h5py.Group, path: str) -> h5py.Dataset:
    """The array ``a/b/c`` below ``group``; nothing of it is read yet.

    Raises KeyError if there is none, ValueError unless it is an array of numbers in this file.
    """
    *groups, name = path.split("/")
    for part in groups:
        group = own_group(group, part)
    array = own(group, name)
    if not isinstance(array, h5py.Dataset):
        raise ValueError(f"{path} is no array")
    properties = array.id.get_create_plist()
    layout = properties.get_layout()
    if array.shape is None or layout == h5d.VIRTUAL or properties.get_external_count():
        raise ValueError(f"{path} has its numbers elsewhere")
    if array.dtype.kind not in KINDS or array.dtype.fields or array.dtype.subdtype:
        raise ValueError(f"{path} is of type {array.dtype}, no plain numbers")
    used = {properties.get_filter(n)[0] for n in range(properties.get_nfilters())}
    if used - FILTERS:
        raise ValueError(f"{path} is packed by a filter of number {min(used - FILTERS)}")
    if array.chunks and math.prod(array.chunks) * array.dtype.itemsize > LARGEST_CHUNK:
        raise ValueError(f"{path} is packed in pieces of {array.chunks}")
    return array


def own_group(group: h5py.Group, name: str) -> h5py.Group:
    """The group ``name`` of ``group``. Raises as ``own_array`` does."""
    member = own(group, name)
    if not isinstance(member, h5py.Group):
        raise ValueError(f"{name} is no group")
    return member


def own(group: h5py.Group, name: str) -> Any:
    """The object that the group itself holds under ``name``. Raises as ``own_array`` does."""
    link = group.get(name, getlink=True)
    if link is None:
        raise KeyError(f"there is no {name}")
    if not isinstance(link, h5py.HardLink):  # it would open whatever file it names
        raise ValueError(f"{name} is a link to elsewhere")
    return group[name]


def attribute(group: h5py.Group, name: str) -> Any:
    """An attribute: a number, bytes, or an array of those. Raises as ``own_array`` does."""
    header = group.attrs.get_id(name)
    kind, shape = header.dtype, header.shape
    if (
        shape is None
        or kind.kind not in KINDS
        or math.prod(shape) * kind.itemsize > LARGEST_ATTRIBUTE
    ):
        raise ValueError(f"attribute {name} is {kind} of shape {shape}")
    value: NDArray[Any] | Any = group.attrs[name]
    return value
