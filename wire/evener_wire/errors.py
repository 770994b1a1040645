"""The two families of errors: ours (evener was used wrongly) and the peer's (the other side erred).

Everything evener raises on purpose derives from `EvenerError`. The parts add their own subclasses;
only what the wire itself needs stands here.
"""


class EvenerError(Exception):
    """Base of every error that evener raises on purpose. Anything else that escapes is a bug."""


class UsageError(EvenerError):
    """Raised when the caller asks for something that cannot work: the text names the remedy."""


class PeerError(EvenerError):
    """Raised when the other side of a connection sent what the protocol does not allow."""
