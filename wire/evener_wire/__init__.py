"""What the parts of evener say to each other: messages, their bytes, limits and errors.

Nothing here does I/O, reads a clock, or imports another part of evener.
"""
