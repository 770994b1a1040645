"""What is wrong with a configuration."""

from __future__ import annotations

from collections.abc import Sequence

from evener_wire.errors import UsageError


class ConfigError(UsageError):
    """Raised when a configuration cannot be used. `problems`: a sentence for each thing wrong."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)
