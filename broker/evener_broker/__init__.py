"""The broker: a deciding core without I/O, and a thin shell around one ROUTER socket."""
