"""The version of the distribution; read by the build and by `evener --version`, so nothing else."""

__version__ = "0.1.0"
