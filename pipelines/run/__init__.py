"""Running jobs: recipe, scheduler, executors, watchdog, locks, outputs."""
