"""An app without functions, for workers that run only what comes by value."""

from __future__ import annotations

from evener.app import App

app = App("none")
