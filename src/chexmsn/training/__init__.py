"""One loop for every method: Lightning behind a thin interface, run folders, schedules, checkpoints, logs."""
