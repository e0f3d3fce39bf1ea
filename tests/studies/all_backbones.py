"""Every model of timm as a backbone, on the meta device: used or refused, how, and why.

``python -m tests.studies.all_backbones`` measures those that ``models/timm_backbones.json`` does
not hold yet (all, with ``--anew``), writes that file as it goes and the table of
``docs/backbones.md`` at the end. All of them take about half an hour of two cores.
"""

import json
import os
import sys
import warnings
from collections import Counter, defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import timm
import torch

from common.files import write_atomic
from models.backbone_facts import TABLE, measured_facts

PAGE = Path("docs/backbones.md")
BEGIN, END = "<!-- backbones:begin -->", "<!-- backbones:end -->"
EVERY = 20


def main() -> None:
    anew = "--anew" in sys.argv[1:]
    models = {} if anew or not TABLE.is_file() else json.loads(TABLE.read_bytes())["models"]
    missing = [name for name in timm.list_models() if name not in models]
    with ProcessPoolExecutor(initializer=_begin) as pool:
        for number, (name, facts) in enumerate(
            zip(missing, pool.map(_facts, missing), strict=True), 1
        ):
            models[name] = facts
            way = facts.get("how", facts.get("reason"))
            sys.stdout.write(f"[{number}/{len(missing)}] {name}: {way}\n")
            if number % EVERY == 0:
                _save(models)
    _save(models)
    _write(models)


def _begin() -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="timm")


def _facts(name: str) -> dict[str, Any]:
    try:
        return measured_facts(name)
    except Exception as error:  # a fault of ours, which the table must show
        return {"usable": False, "reason": f"{type(error).__name__}: {error}"}


def _write(models: dict[str, Any]) -> None:
    head, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, tail = rest.partition(END)
    write_atomic(PAGE, f"{head}{BEGIN}\n{table(models)}{END}{tail}")


def _save(models: dict[str, Any]) -> None:
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(models[name])}" for name in sorted(models))
    write_atomic(TABLE, f'{{"timm": "{timm.__version__}", "models": {{\n{lines}\n}}}}\n')


def table(models: dict[str, Any]) -> str:
    """Markdown: the sums, a row for each family and each refusal."""
    ways = Counter(facts.get("how", "refused") for facts in models.values())
    count = len(timm.list_models())
    lines = [f"{len(models)} of the {count} models of timm {timm.__version__} are measured.", ""]
    lines += ["| | models |", "|---|---|"]
    lines += [f"| {way} | {count} |" for way, count in ways.most_common()]
    lines += ["", "| family | models | how | strides | only one size |", "|---|---|---|---|---|"]
    families = defaultdict(list)
    for facts in models.values():
        families[facts.get("family", "")].append(facts)
    for family, members in sorted(families.items()):
        used = [facts for facts in members if facts["usable"]]
        strides = Counter(", ".join(map(str, facts["strides"])) for facts in used).most_common()
        shown = "; ".join(text for text, _ in strides[:2]) + (" …" if strides[2:] else "")
        how = ", ".join(dict.fromkeys(facts["how"] for facts in used))
        fixed = sum(facts["image_size"] is not None for facts in used)
        of = f"{len(used)} of {len(members)}" if len(used) < len(members) else str(len(used))
        lines.append(f"| {family} | {of} | {how} | {shown} | {fixed or ''} |")
    refused = {name: facts["reason"] for name, facts in models.items() if not facts["usable"]}
    if refused:
        lines += ["", "| refused | reason |", "|---|---|"]
        lines += [f"| `{name}` | {reason} |" for name, reason in refused.items()]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
