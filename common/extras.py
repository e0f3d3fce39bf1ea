"""Optional packages."""

import importlib.util

from common.errors import UsageError


def need(*packages: str, extra: str, option: str) -> None:
    """Raises UsageError that names the extra if one of ``packages`` is not installed."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise UsageError(f"{option} needs {package}: pip install -e '.[{extra}]'")
