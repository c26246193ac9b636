"""Files of a run's folder by which others know whether anybody trains there."""

LOCK = ".lock"  # held while a process trains
PROCESS = "process.json"  # which process that is; gone when it ends by itself
