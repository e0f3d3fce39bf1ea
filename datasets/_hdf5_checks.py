"""What is read of an HDF5 file that may come from elsewhere: plain numbers, of its own bytes.

HDF5 would follow a link to another file, load a library for a filter, and make room for any shape
that a header claims. So each array is looked at before it is read.
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

    Raises KeyError where there is none, ValueError for what is no array of the file's own numbers.
    """
    *groups, name = path.split("/")
    for part in groups:
        group = own_group(group, part)
    found = own(group, name)
    if not isinstance(found, h5py.Dataset):
        raise ValueError(f"{path} is no array")
    properties = found.id.get_create_plist()
    layout = properties.get_layout()
    if found.shape is None or layout == h5d.VIRTUAL or properties.get_external_count():
        raise ValueError(f"{path} has its numbers elsewhere")
    if found.dtype.kind not in KINDS or found.dtype.fields or found.dtype.subdtype:
        raise ValueError(f"{path} is of type {found.dtype}, no plain numbers")
    used = {properties.get_filter(n)[0] for n in range(properties.get_nfilters())}
    if used - FILTERS:
        raise ValueError(f"{path} is packed by a filter of number {min(used - FILTERS)}")
    if found.chunks and math.prod(found.chunks) * found.dtype.itemsize > LARGEST_CHUNK:
        raise ValueError(f"{path} is packed in pieces of {found.chunks}")
    return found


def own_group(group: h5py.Group, name: str) -> h5py.Group:
    """The group ``name`` of ``group``. Raises as ``own_array`` does."""
    found = own(group, name)
    if not isinstance(found, h5py.Group):
        raise ValueError(f"{name} is no group")
    return found


def own(group: h5py.Group, name: str) -> Any:
    """What the group itself holds under a name. Raises as ``own_array`` does."""
    link = group.get(name, getlink=True)
    if link is None:
        raise KeyError(f"there is no {name}")
    if not isinstance(link, h5py.HardLink):  # it would open whatever file it names
        raise ValueError(f"{name} is a link to elsewhere")
    return group[name]


def attribute(group: h5py.Group, name: str) -> Any:
    """An attribute: a number, bytes, or an array of those. Raises as ``own_array`` does."""
    found = group.attrs.get_id(name)
    kind, shape = found.dtype, found.shape
    if (
        shape is None
        or kind.kind not in KINDS
        or math.prod(shape) * kind.itemsize > LARGEST_ATTRIBUTE
    ):
        raise ValueError(f"attribute {name} is {kind} of shape {shape}")
    value: NDArray[Any] | Any = group.attrs[name]
    return value
