"""Mutations: of bytes, of JSON values, of texts, and of what is packed in a PNG, a zip or HDF5."""

import copy
import io
import json
import math
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

NUMBERS = (0, 1, -1, 2, 3, 127, 128, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**40,
           2**62, 2**63 - 1, 2**63, 2**64 - 1, 10**30, 10**400)  # fmt: skip
FLOATS = (0.0, -0.0, 0.5, -1.5, 1e-320, 1e38, 1e154, 1.7e308, float("inf"), float("-inf"),
          float("nan"))  # fmt: skip
TEXTS = (
    "", " ", "x", "a\nb", "\0", "\x1b[31mred", "\x1b]8;;http://x\x07", "\x9b2J", "\u202eevil",
    "</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\u2028", "{{ 7*7 }}",
    "[link=http://x]y[/link]", "[/]", "[bold", "a|b", "`x`", "![a](http://x)", "=1+1", "@SUM(A1)",
    "../../../etc/passwd", "/etc/passwd", "..", "a/../../b", "C:\\x", "con", "~root", "%s%n",
    "$\\frac{", "$x$", "\\input{/etc/passwd}", "x" * 300, "y" * 5000, "é日本🎉", "nan", "1e999",
    "connectivity:", "connectivity:../../x.json", "connectivity:/dev/null", "cpu", "cuda", "D1",
    "E1", "G", "sparsemask", "fcn", "depth", "depth+segmentation", "scenes", "camvid",
    "mobilenetv2_100", "hf-hub:a/b", "local-dir:/tmp", "test_resnet",
)  # fmt: skip


def of_bytes(content: bytes, rng: random.Random) -> bytes:
    """Bits turned, bytes and numbers overwritten, pieces cut out, doubled or moved."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        if not data:
            return bytes(data)
        reach = rng.choice((len(data), min(len(data), 64), min(len(data), 1024)))
        at, kind = rng.randrange(reach), rng.randrange(8)
        size = min(rng.choice((1, 2, 4, 8, 64, 512)), len(data) - at)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at] = rng.choice((0, 1, 127, 128, 254, 255, rng.randrange(256)))
        elif kind == 2:
            width = rng.choice((2, 4, 8))
            number = rng.choice((*NUMBERS, len(data))) % 2 ** (8 * width)
            data[at : at + width] = number.to_bytes(width, rng.choice(("little", "big")))
        elif kind == 3:
            del data[at : at + size]
        elif kind == 4:
            data[at:at] = data[at : at + size] * rng.choice((1, 2, 100))
        elif kind == 5:
            data[at:at] = rng.randbytes(size)
        elif kind == 6:
            other = rng.randrange(len(data))
            data[at : at + size] = data[other : other + size]
        elif rng.random() < 0.3:
            del data[at:]
    return bytes(data)


def hostile(rng: random.Random, depth: int = 0) -> Any:
    """A value that nobody expected."""
    kind = rng.randrange(9)
    if kind < 2:
        return rng.choice(NUMBERS) * rng.choice((1, 1, -1))
    if kind == 2:
        return rng.choice(FLOATS)
    if kind < 6:
        return rng.choice(TEXTS)
    if kind == 6:
        return rng.choice((None, True, False))
    if depth > 2:
        return []
    many = [hostile(rng, depth + 1) for _ in range(rng.choice((0, 1, 2, 3)))]
    return many if kind == 7 else {str(hostile(rng, 3)): value for value in many}


def of_value(content: Any, rng: random.Random) -> Any:
    """One to four places of a JSON value replaced, removed, doubled, renamed or swapped."""
    content = copy.deepcopy(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        places = list(_places(content))
        if not places:
            return hostile(rng)
        parent, key = rng.choice(places)
        kind = rng.randrange(8)
        if kind < 4:
            parent[key] = hostile(rng)
        elif kind == 4:
            del parent[key]
        elif kind == 5 and isinstance(parent, dict):
            parent[str(rng.choice(TEXTS))] = parent.pop(key)
        elif kind == 5:
            parent.extend(copy.deepcopy(parent)[: rng.choice((1, 10, 200))])
        elif kind == 6:
            other, place = rng.choice(places)
            parent[key] = copy.deepcopy(other[place]) if place in _keys(other) else None
        else:
            for _ in range(rng.choice((1, 30, 150, 3000))):
                parent[key] = [parent[key]]
    return content


def _keys(parent: Any) -> Any:
    return parent if isinstance(parent, dict) else range(len(parent))


def _places(content: Any, most: int = 5000) -> Any:
    stack = [content]
    while stack and most > 0:
        node = stack.pop()
        if isinstance(node, dict | list):
            keys = list(_keys(node))
            for key in keys:
                most -= 1
                yield node, key
            stack += [node[key] for key in keys]


ODD = (math.inf, -math.inf, math.nan, 1.7e308, 0, -1, 0.5, 10**30, None, True, "", "x" * 300, "<b>",
       "=1", [], {}, [None], {"a": None}, [math.inf, 2])  # fmt: skip
"""What stands in for each value of a JSON file in turn; after them, that it is not there."""


def replacements(content: bytes) -> tuple[str, list[tuple[int, int]]]:
    """The shape of a JSON file, and what ``replaced`` may be given for it."""
    places = list(_ends(json.loads(content)))
    shape = repr([key for _, key in places])
    return shape, [(place, odd) for place in range(len(places)) for odd in range(len(ODD) + 1)]


def replaced(content: bytes, place: int, odd: int) -> bytes:
    """A JSON file with one value replaced, or removed."""
    whole = json.loads(content)
    parent, key = list(_ends(whole))[place]
    if odd < len(ODD):
        parent[key] = copy.deepcopy(ODD[odd])
    else:
        del parent[key]
    return json.dumps(whole).encode()


def _ends(content: Any) -> Any:
    """As ``_places``, but of lists only the first and the last."""
    stack = [content]
    while stack:
        node = stack.pop()
        if isinstance(node, dict | list):
            keys = list(_keys(node))
            keys = keys if isinstance(node, dict) else sorted({*keys[:1], *keys[-1:]})
            yield from ((node, key) for key in keys)
            stack += [node[key] for key in keys]


def of_json(content: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.25:
        return of_bytes(content, rng)
    if rng.random() < 0.02:
        return b"[" * 10**5 + content
    try:
        return json.dumps(of_value(json.loads(content), rng)).encode()
    except (RecursionError, ValueError):
        return b'{"a":' * 5000 + content


TOKENS = (
    "&a ", "*a", "<<: *a", "!!int ", "!!float ", "!!bool ", "!!timestamp ", "!!set ", "!!binary ",
    "!!python/object/apply:os.system [echo]", "!x ", "- ", "? ", ": ", "[", "]", "{", "}", "|\n",
    ">\n", "#", "---\n", "...\n", "%YAML 9.9\n", "\t", "0x" + "f" * 300, "1:1:1", "9" * 400, ".inf",
    ".nan", "2001-99-99", "~", "yes", '"', "'", "\\", "\r", "\u2028", "\ufeff", "null", ",", "\n",
    "${HOME}", "${", "seeds: [1,2,3]\n", "task", "depth", "[" * 3000, "- " * 3000,
)  # fmt: skip


def of_text(content: bytes, rng: random.Random) -> bytes:
    """Tokens put in, lines moved, doubled and cut."""
    if rng.random() < 0.15:
        return of_bytes(content, rng)
    text = content.decode()
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        lines, kind = text.splitlines(keepends=True) or [""], rng.randrange(5)
        at, line = rng.randrange(len(text) + 1), rng.randrange(len(lines))
        if kind < 2:
            token = rng.choice((*TOKENS, *TEXTS))
            text = text[:at] + token + text[at + rng.choice((0, 0, len(token), 5)) :]
        elif kind == 2:
            lines[line:line] = lines[line : line + rng.randrange(4)] * rng.choice((1, 2, 50))
            text = "".join(lines)
        elif kind == 3:
            value = str(rng.choice((*NUMBERS[:-1], *FLOATS, *TEXTS)))
            key, colon, _ = lines[line].partition(":")
            lines[line] = f"{key}: {value}\n" if colon else f"{value}\n"
            text = "".join(lines)
        else:
            text = text[: max(at, 1)] if rng.random() < 0.2 else text.replace(lines[line], "", 1)
    return text.encode("utf-8", "surrogatepass")


def of_png(content: bytes, rng: random.Random) -> bytes:
    """Chunks changed with their checksums right, so that what is in them is read."""
    if not content.startswith(b"\x89PNG") or rng.random() < 0.3:
        return of_bytes(content, rng)
    chunks, at = [], 8
    while at < len(content):
        (size,) = struct.unpack_from(">I", content, at)
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + size]))
        at += size + 12
    place = rng.choice((0, 0, rng.randrange(len(chunks))))
    kind, body = chunks[place]
    if kind == b"IHDR" and rng.random() < 0.7:
        width, height, *rest = struct.unpack(">IIBBBBB", body)
        sides = (width, height, 0, 1, 60_000, 10**4, 2**31 - 1, 2**16)
        width, height = rng.choice(sides), rng.choice(sides)
        rest[rng.randrange(5)] = rng.choice((0, 1, 2, 3, 4, 6, 8, 16))
        chunks[place] = kind, struct.pack(">IIBBBBB", width, height, *rest)
    elif kind == b"IDAT" and rng.random() < 0.5:
        unpacked = zlib.decompress(body) if len(body) > 8 else b""
        more = bytes(rng.choice((0, 0, 0, 10**8)))
        chunks[place] = kind, zlib.compress(of_bytes(unpacked, rng) + more, 1)
    elif rng.random() < 0.3:
        text = zlib.compress(bytes(rng.choice((10, 10, 10**8))), 1)
        chunks.insert(1, (rng.choice((b"zTXt", b"iCCP")), b"x\0\0" + text))
    else:
        chunks[place] = kind, of_bytes(body, rng)
    packed = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    return content[:8] + packed


def of_zip(content: bytes, rng: random.Random) -> bytes:
    """Members changed with their checksums right, some packed from very much."""
    if rng.random() < 0.3:
        return of_bytes(content, rng)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
        packing = archive.infolist()[0].compress_type
    name = rng.choice(list(members))
    kind = rng.randrange(6)
    if kind == 0:
        members[name] = members[name][:128] + bytes(rng.choice((0, 10, 2 * 10**8)))
        packing = zipfile.ZIP_DEFLATED
    elif kind == 1:
        members[rng.choice(TEXTS) or "x"] = members.pop(name)
    elif kind == 2 and members[name][:6] == b"\x93NUMPY":
        members[name] = with_numpy_head(members[name], rng)
    else:
        members[name] = of_bytes(members[name], rng)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", packing) as archive:
        for name, member in members.items():
            archive.writestr(name.replace("\0", "?")[:60000], member)
    return out.getvalue()


def with_numpy_head(content: bytes, rng: random.Random) -> bytes:
    """An array file of another shape and type."""
    shape = rng.choice((
        *("(10000000000,)", "()", "(0,)", "(2,3)", "(-1,)", "(1000,1)", "(9,", "(48, 64)"),
        *("(100000, 100000)", "(48, 64, 0)", "(2, 2, 700)", "(1, 1, 1, 1)", "(True, 64)"),
    ))  # fmt: skip
    kinds = rng.choice(("<f4", "|O", "<f8", "|S9", "<M8[s]", "<i4", ">f4", "|V8", "<c8", "|b1",
                        "<f2", "<u8", "<i8", "<f16"))  # fmt: skip
    order = rng.choice(("False", "True"))
    head = f"{{'descr': '{kinds}', 'fortran_order': {order}, 'shape': {shape}, }}".ljust(117)
    return b"\x93NUMPY\1\0v\0" + head.encode() + b"\n" + content[128:]


def with_tiff_tag(content: bytes, rng: random.Random) -> bytes:
    """A TIFF file with one to three tags of another value, type or count."""
    data = bytearray(content)
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = start + 2 + 12 * rng.randrange(count)
        field = rng.choice((0, 1, 2, 3, 3, 3, 3))
        if field == 0:  # width, height, bits, packing, …, tiles, kind of number
            tag = rng.choice((256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 322, 338, 339))
            struct.pack_into("<H", data, at, tag)
        elif field == 1:
            struct.pack_into("<H", data, at + 2, rng.randrange(20))
        elif field == 2:
            struct.pack_into("<I", data, at + 4, rng.choice(NUMBERS) % 2**32)
        else:
            number = rng.choice((*NUMBERS, 8, 16, 32, 64, 10_000, 32773, 32946, 50000))
            struct.pack_into("<I", data, at + 8, number % 2**32)
    return bytes(data)


def of_safetensors(content: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.3:
        return of_bytes(content, rng)
    size = int.from_bytes(content[:8], "little")
    head, body = content[8 : 8 + size], content[8 + size :]
    kind = rng.randrange(4)
    if kind < 3:
        head = json.dumps(of_value(json.loads(head), rng)).encode()
    else:
        body = of_bytes(body, rng)
    count = rng.choice((len(head), len(head), len(head), *NUMBERS)) % 2**64
    return count.to_bytes(8, "little") + head + body


def of_mat(content: bytes, rng: random.Random) -> bytes:
    """The first variable unpacked, changed and packed again."""
    kind, size = struct.unpack_from("<II", content, 128)
    if kind != 15 or rng.random() < 0.3:
        return of_bytes(content, rng)
    body = of_bytes(zlib.decompress(content[136 : 136 + size]), rng)
    body = body[:-8] + bytes(10**8) if rng.random() < 0.05 else body
    packed = zlib.compress(body)
    return content[:128] + struct.pack("<II", 15, len(packed)) + packed


def of_hdf5(content: bytes, rng: random.Random) -> bytes:
    """Bytes; or through HDF5 itself: links, shapes, types and attributes that nobody expected."""
    if rng.random() < 0.5:
        return of_bytes(content, rng)
    out = io.BytesIO(content)
    with h5py.File(out, "r+", libver=("v110", "v110")) as file:
        for _ in range(rng.choice((1, 1, 3))):
            names: list[str] = []
            file.visit(names.append)
            if not names:
                break
            name = rng.choice((names[0], rng.choice(names)))
            rng.choice((_relink, _reshape, _reattribute))(file, name, rng)
    return out.getvalue()


def _relink(file: Any, name: str, rng: random.Random) -> None:
    del file[name]
    makers: tuple[Callable[[], Any], ...] = (
        lambda: h5py.ExternalLink("/etc/passwd", "/x"),
        lambda: h5py.ExternalLink("../other.h5", name),
        lambda: h5py.SoftLink("/"),
        lambda: h5py.SoftLink(f"/{name}"),
        lambda: file["/"],
        lambda: np.dtype("f8"),
    )
    if maker := rng.choice((None, *makers)):
        file[name] = maker()


def _reshape(file: Any, name: str, rng: random.Random) -> None:
    del file[name]
    kind = rng.randrange(5)
    if kind == 0:
        layout = h5py.VirtualLayout((3, 4), "u1")
        layout[:] = h5py.VirtualSource("/etc/passwd", "x", (3, 4))
        file.create_virtual_dataset(name, layout)
    elif kind == 1:
        file.create_dataset(name, (8, 8), "u1", external=[("/etc/passwd", 0, 64)])
    elif kind == 2:
        file.create_dataset(name, data=["a", "b"], dtype=h5py.string_dtype())
    else:
        side = rng.choice((1, 40, 10**5, 10**9))
        shape = rng.choice(((3, side, side), (side, side), (side,), (5, side, side), ()))
        kinds = ("u1", "u2", "i4", "f4", "f8", "c8", "S9", [("a", "u1")], np.dtype(("u1", (9, 9))))
        dtype = rng.choice(kinds)
        large = np.prod(np.array(shape, float)) > 10**6
        chunks = tuple(min(s, 64) for s in shape) if large else None
        file.create_dataset(name, shape, dtype, chunks=chunks)


def _reattribute(file: Any, name: str, rng: random.Random) -> None:
    group = rng.choice((file, file[name]))
    keys = list(group.attrs) or ["x"]
    value = rng.choice((
        *(0, -1, 2**62, 0.5, np.bytes_(b"x"), "text", np.zeros(3), np.zeros((2, 2))),
        *(h5py.Empty("f"), np.arange(2)),
        *(np.array([b"a\xff"], "S9"), np.zeros(8000), True, ["a", "b"], np.array([2**40] * 2)),
        *(np.array([b"depth", b"x"], "S9"), np.array([-1, 10**9])),
    ))  # fmt: skip
    group.attrs[rng.choice(keys)] = value


Mutation = Callable[[bytes, random.Random], bytes]


def mutate(path: Path, mutation: Mutation, rng: random.Random) -> None:
    """Replace a file by a changed one; a new inode, since HDF5 knows an open file by it."""
    content = path.read_bytes()
    try:
        changed = mutation(content, rng)
    except Exception:  # what is damaged already may not be of its kind any more
        changed = of_bytes(content, rng)
    path.unlink()
    path.write_bytes(changed)
