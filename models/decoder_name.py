"""Names of decoders on the command line and in results. Imports nothing heavy."""

import os.path
from dataclasses import dataclass
from pathlib import Path

KIND = "connectivity"


@dataclass(frozen=True)
class DecoderName:
    """A decoder of the registry, or ``connectivity:FILE.json``: the one that the file wires.

    label: the name to show; of a file, its name without folder and suffix. file: None for a
    decoder of the registry.
    """

    label: str
    file: Path | None = None

    @classmethod
    def parse(cls, text: str) -> "DecoderName":
        """Takes any text: whether there is such a decoder or file is not checked here."""
        kind, _, file = text.partition(":")
        if kind != KIND or not file:
            return cls(text)
        # pathlib's raises for a user that this machine lacks, and a result may name any
        return cls(Path(file).stem, Path(os.path.expanduser(file)))  # noqa: PTH111

    def __str__(self) -> str:
        """The text that ``parse`` takes."""
        return self.label if self.file is None else f"{KIND}:{self.file}"

    def without_folder(self) -> "DecoderName":
        """The same with the file's name alone, which reveals nothing of this machine."""
        return self if self.file is None else DecoderName(self.label, Path(self.file.name))
