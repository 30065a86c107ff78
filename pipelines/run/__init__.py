"""Runs jobs: recipe, schedule, executors, watchdog, locks, outputs."""
