"""Rows of ``benchmark.speed.table`` as tables for a terminal."""

from collections.abc import Iterable, Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from benchmark.results.result import Speed
from benchmark.speed.profile import Profile
from benchmark.speed.rows import SpeedRow
from common.words import DISTURBED, disturbed_note, number, quantity

SHOWN_SHARE = 0.0005
"""Least share of a profile's time for which a part has a line."""
WHICH = (
    'Which time for what: ratios from "in turns"; absolute times of an idle machine from "alone"; '
    "the profile only for shares."
)


def speed_tables(rows: Sequence[SpeedRow]) -> list[Table]:
    """Sizes; times; images per second by batch; fresh processes; a profile for each row."""
    tables = [_sizes(rows)]
    timed = [row for row in rows if row.get("latency")]
    if timed:
        tables.append(_times(timed))
        if len({row["batch"] for row in rows}) > 1:
            tables.append(_throughput(timed))
    if any(row.get("isolated") or row.get("isolated_error") for row in rows):
        tables.append(_isolated(timed))
    profiled = [(row, profile) for row in timed if (profile := row.get("profile"))]
    tables += [_profile(row, profile, row is profiled[-1][0]) for row, profile in profiled]
    if profiled and any(row.get("isolated") for row in timed):
        tables[-1].caption = f"{tables[-1].caption}\n{WHICH}"
    return tables


def _table(title: str, notes: Sequence[str], names: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(
        title=escape(title),
        title_justify="left",
        title_style="bold",
        caption=escape("\n".join(notes)),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for name in names:
        table.add_column(name, overflow="fold")
    for title in numbers:
        table.add_column(title, justify="right")
    return table


def _mb(count: int | None) -> str:
    return quantity(count and count / 1e6, 1)


def _size(row: SpeedRow) -> str:
    return "x".join(map(str, row["image_size"]))


def _labels(row: SpeedRow) -> list[str]:
    return [row["backbone"], escape(row["decoder"]), _size(row)]


def _runtimes(rows: Sequence[SpeedRow]) -> bool:
    """Whether the rows are of runtimes that were asked for."""
    return any("once" in row for row in rows)


def _timed_as(rows: Sequence[SpeedRow]) -> list[str]:
    """Titles of ``_timed_labels``."""
    return ["backbone", "decoder", "size", *(["runtime"] if _runtimes(rows) else [])]


def _timed_labels(row: SpeedRow) -> list[str]:
    return [*_labels(row), *([_how(row)] if "once" in row else [])]


def _how(row: SpeedRow) -> str:
    return f"{row['runtime']} {row['precision']}"


def _latency(row: SpeedRow) -> Speed:
    """The timing of a row that ran."""
    latency = row["latency"]
    assert latency is not None
    return latency


def _batch(row: SpeedRow) -> str:
    """The batch that was asked for and, where memory was short, the one that ran."""
    ran = _latency(row)["batch"]
    return str(ran) if ran == row["batch"] else f"asked {row['batch']}, ran {ran}"


def _failures(rows: Sequence[SpeedRow]) -> list[str]:
    """A line for each error, with the networks that have it."""
    failed: dict[str, dict[tuple[str, str], dict[str, None]]] = {}
    decoders_of: dict[str, set[str]] = {}  # by backbone
    several = len({row["batch"] for row in rows}) > 1
    pairs = len({_how(row) for row in rows if "runtime" in row}) > 1
    for row in rows:
        decoders_of.setdefault(row["backbone"], set()).add(row["decoder"])
        if row["error"] is not None:
            # an error in counting is one of all batches, an error in running may be of one
            batch = f" (batch {row['batch']})" if several and row["params"] else ""
            batch += f" in {_how(row)}" if pairs and row["params"] else ""
            networks = failed.setdefault(row["error"], {})
            networks.setdefault((row["backbone"], batch), {})[row["decoder"]] = None
    lines = []
    for reason, networks in failed.items():
        names: list[str] = []
        for (backbone, batch), decoders in networks.items():
            if len(decoders) > 1 and decoders_of[backbone] == set(decoders):
                names.append(f"{backbone} with every decoder{batch}")
            else:
                names += [f"{backbone} + {decoder}{batch}" for decoder in decoders]
        lines.append(f"{', '.join(names)} failed: {reason}")
    return lines


def _deployed(rows: Sequence[SpeedRow]) -> list[str]:
    """A line for each backbone that is another network when it is timed and exported."""
    lines = {}
    for row in rows:
        if counts := row.get("deployed"):
            timed = row.get("latency")
            done = "exported, not timed," if timed and not timed["fused"] else "timed and exported"
            lines[row["backbone"], _size(row)] = (
                f"{row['backbone']} at {_size(row)} is {done} re-parameterised: "
                f"{counts['params'] / 1e6:.3f} M parameters, {counts['macs'] / 1e9:.3f} GMACs."
            )
    return list(lines.values())


def _sizes(rows: Sequence[SpeedRow]) -> Table:
    notes = [
        f"GMACs: of one image, without {rows[0]['macs_exclude']}.",
        "conv: the decoder's weights as the paper counts them, for FCN and DeepLab-V3 "
        "(light) with the classifier's.",
        *(["Decoders of width {}.".format(rows[0]["width"])] if "width" in rows[0] else []),
        *_deployed(rows),
        *_failures(rows),
    ]
    necks = ["neck"] if any("neck" in row for row in rows) else []
    keys = ["backbone", *necks, "decoder", "decoder_conv_weights", "head"]
    parts = [key for key in keys if key != "decoder_conv_weights"]
    titles = ["M params:\nbackbone", *(f"\n{name}" for name in keys[1:])]
    titles[keys.index("decoder_conv_weights")] = "of which\nconv"
    titles += ["GMACs:\nbackbone", *(f"\n{name}" for name in parts[1:])]
    table = _table("Size", notes, ("backbone", "decoder", "size"), titles)
    shown = {tuple(_labels(row)): row for row in rows}  # whatever the batch
    for labels, row in shown.items():
        params, macs = row["params"] or {}, row["macs"] or {}
        counts = [params[key] / 1e6 if key in params else None for key in keys]
        counts += [macs[key] / 1e9 if key in macs else None for key in parts]
        table.add_row(*labels, *map(number, counts))
    return table


def _setup(record: Speed) -> str:
    """The conditions of a timing, in words."""
    parts = [
        f"on {record['device']}, {record['threads']} thread{'s' * (record['threads'] != 1)}, "
        f"{record['memory_format']}",
        "BatchNorm folded" if record["fused"] else "BatchNorm not folded",
        *(["compiled"] if record["compiled"] else []),
        *(["mixed precision"] if record["amp"] else []),
    ]
    return ", ".join(parts)


def _times(rows: Sequence[SpeedRow]) -> Table:
    records = [_latency(row) for row in rows]
    asked = _runtimes(rows)
    compiled = not asked and any(record["compiled"] for record in records)
    memory = any(row.get("memory") for row in rows)
    notes = [f"Timed {text}." for text in dict.fromkeys(map(_setup, records))]
    if asked:
        folded = "" if all(record["fused"] for record in records) else " but where PyTorch runs it"
        notes = [
            f"Timed on {records[0]['device']}, threads: {records[0]['threads']}, BatchNorm folded"
            f"{folded}. bf16 in PyTorch is mixed precision; int8 is a file with 8-bit convolutions."
        ]
    notes += [
        "ms: median of a batch, normalisation to resized logits. ×: times the fastest of the same "
        "size and batch, timed in turns with it.",
        *([] if asked else ["argmax ms: post-processing, not part of ms."]),
        *(["first call s: compilation included."] if compiled else []),
    ]
    notes += _disturbed([record.get("disturbed") for record in records])
    if memory:
        notes.append("forward MB: the peak above weights and images (weights MB: as they are run).")
        errors = dict.fromkeys(m["error"] for row in rows if (m := row.get("memory")))
        notes += [f"Peak memory not known: {error}" for error in errors if error]
    onnx = any("onnx" in row for row in rows)
    if onnx:
        notes.append("FPS onnx: an ONNX file of that size, by onnxruntime, timed in turns too.")
        errors = dict.fromkeys(row.get("onnx_error") for row in rows)
        notes += [f"No ONNX file: {error}" for error in errors if error]
    if asked:
        notes.append(
            "export s: to write the ONNX file and to quantise it (on random images). load s: to "
            "read and compile it. file MB: its size."
        )
    necks = any("neck" in row for row in rows)
    if necks:
        notes.append("neck ms: of all maps of the backbone's neck alone, timed in turns too.")
    titles = ["ms", *(["neck\nms"] if necks else [])]
    titles += ["×", "p5–p95", *([] if asked else ["IQR"]), "FPS"]
    titles += [] if asked else ["argmax\nms"]
    titles += ["FPS\nonnx"] if onnx else []
    titles += ["export\ns", "load\ns", "file\nMB"] if asked else []
    titles += ["first\ncall s"] if compiled else []
    titles += ["forward\nMB", "weights\nMB"] if memory else []
    table = _table("Time", notes, (*_timed_as(rows), "batch"), titles)
    best: dict[str, float] = {}
    for record in records:
        session = record["session"]
        best[session] = min(_per_image(record), best.get(session, _per_image(record)))
    for row, record in zip(rows, records, strict=True):
        cells = [
            quantity(record["median_ms"], 1) + DISTURBED * bool(record.get("disturbed")),
            *([quantity(row["neck"]["ms"] if "neck" in row else None, 1)] if necks else []),
            quantity(_per_image(record) / best[record["session"]], 2),
            f"{quantity(record['p5_ms'], 1)}–{quantity(record['p95_ms'], 1)}",
            *([] if asked else [quantity(record["iqr_ms"], 1)]),
            quantity(record["fps"], 1),
            *([] if asked else [quantity(row["postprocessing_ms"], 1)]),
        ]
        if onnx:
            cells.append(quantity((row.get("onnx") or {}).get("fps"), 1))
        if asked:
            once = row["once"]
            cells += [quantity(once["export_s"], 1), quantity(once["load_s"], 1)]
            cells.append(_mb(once["file_bytes"]))
        cells += [quantity(row["first_call_s"], 1)] if compiled else []
        if memory:
            peak = row.get("memory")
            cells += [_mb(peak and peak["forward_bytes"]), _mb(peak and peak["weights_bytes"])]
        table.add_row(*_timed_labels(row), _batch(row), *cells)
    return table


def _disturbed(shares: Iterable[float | None]) -> list[str]:
    """The meaning of the mark, if any row bears it. shares: what other work took, of each row."""
    most = max((share or 0.0 for share in shares), default=0.0)
    return [disturbed_note(most)] if most else []


def _per_image(record: Speed) -> float:
    return record["median_ms"] / record["batch"]


def _throughput(rows: Sequence[SpeedRow]) -> Table:
    """Images per second of each pair and size, with a column for each batch of the options."""
    batches = list(dict.fromkeys(row["batch"] for row in rows))
    grouped: dict[tuple[str, ...], dict[int, SpeedRow]] = {}
    for row in rows:
        grouped.setdefault(tuple(_timed_labels(row)), {})[row["batch"]] = row
    shrunk = any(_latency(row)["batch"] != row["batch"] for row in rows)
    notes = ["(n): memory was enough for n images only."] if shrunk else []
    titles = [*(f"batch {batch}" for batch in batches), "best batch"]
    table = _table("Images per second", notes, _timed_as(rows), titles)
    for labels, by_batch in grouped.items():
        cells = []
        for batch in batches:
            record = by_batch[batch]["latency"] if batch in by_batch else None
            ran = "" if record is None or record["batch"] == batch else f" ({record['batch']})"
            mark = DISTURBED * bool(record and record.get("disturbed"))
            cells.append(quantity(None if record is None else record["fps"], 1) + mark + ran)
        best = max(map(_latency, by_batch.values()), key=lambda record: record["fps"])
        table.add_row(*labels, *cells, str(best["batch"]))
    return table


def _isolated(rows: Sequence[SpeedRow]) -> Table:
    """The time of each network alone in fresh processes, beside its time in turns."""
    errors = dict.fromkeys(row["isolated_error"] for row in rows)
    counts = {row["isolated"]["processes"] for row in rows if row["isolated"]}
    notes = [
        f"Each alone in fresh processes ({', '.join(map(str, counts))}): median and range of their "
        "medians. spread: range / median.",
        *(f"Not timed in a fresh process: {error}" for error in errors if error),
        *_disturbed(row["isolated"].get("disturbed") for row in rows if row["isolated"]),
    ]
    titles = ["in turns\nms", "alone\nms", "min–max", "spread"]
    table = _table("Fresh processes", notes, ("backbone", "decoder", "size", "batch"), titles)
    for row in rows:
        cells = ["–"] * 3
        if alone := row["isolated"]:
            low, middle, high = alone["min_ms"], alone["median_ms"], alone["max_ms"]
            spread = f"{100 * (high - low) / middle:.1f} %"
            mark = DISTURBED * bool(alone.get("disturbed"))
            cells = [quantity(middle, 1) + mark, f"{quantity(low, 1)}–{quantity(high, 1)}", spread]
        turns = quantity(_latency(row)["median_ms"], 1)
        table.add_row(*_labels(row), _batch(row), turns, *cells)
    return table


def _profile(row: SpeedRow, profile: Profile, explained: bool) -> Table:
    """Parts of one row's forward. explained: a note below says what the roofline is."""
    peaks = profile["peaks"]
    excess = 100 * (profile["sum_ms"] / profile["whole_ms"] - 1)
    notes = [
        f"The parts' sum, {quantity(profile['sum_ms'], 1)} ms, is {abs(excess):.1f} % "
        f"{'above' if excess > 0 else 'below'} the whole without a profile, "
        f"{quantity(profile['whole_ms'], 1)} ms.",
    ]
    if explained:
        notes.append(
            "roofline: the time at this machine's measured peaks, "
            f"{peaks['flops_per_s'] / 1e9:.0f} G{peaks['dtype']} operations/s and "
            f"{peaks['bytes_per_s'] / 1e9:.1f} GB/s, as a share of the time taken. "
            "A share above the whole: caches held what counts as memory."
        )
    title = f"{row['backbone']} + {row['decoder']}, {_size(row)}, batch {_batch(row)}"
    titles = ["ms", "share", "MMACs", "MB moved", "roofline", "bound by"]
    table = _table(title, notes, ("part",), titles)
    for part in profile["parts"]:
        if part["share"] >= SHOWN_SHARE:
            table.add_row(
                part["name"],
                quantity(part["ms"], 2),
                f"{100 * part['share']:.1f} %",
                quantity(part["macs"] / 1e6, 1),
                _mb(part["bytes"]),
                f"{100 * part['roofline_share']:.0f} %" if part["bytes"] else "–",
                part["bound"] if part["bytes"] else "–",
            )
    return table
