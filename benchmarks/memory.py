"""Memory of a process, as Linux counts it."""

from pathlib import Path


def memory(field: str, process: int | str = "self") -> float:
    """VmRSS (resident now) or VmHWM (its peak) of a process, in GB. Raises OSError where /proc has it not."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024 / 1e9
    raise OSError(f"/proc/{process}/status has no {field}")
