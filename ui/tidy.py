"""Memory that is free, and that the C library keeps: a server that has become idle hands it back."""

import contextlib
import ctypes


def hand_back() -> None:
    """Return freed memory to the system, where the C library is glibc; elsewhere it does so by itself."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
