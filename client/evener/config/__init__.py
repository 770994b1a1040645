"""Configuration: one table of settings, and where their values come from.

`schema.py` has the table, `kinds.py` what values look like, `files.py` reads a file, `settings.py`
says which value holds: flag, environment, file, default, in this order.
"""

from __future__ import annotations

from evener.config.errors import ConfigError
from evener.config.settings import Settings, settings

__all__ = ["ConfigError", "Settings", "settings"]
