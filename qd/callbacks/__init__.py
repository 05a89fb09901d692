"""Lightning callbacks: schedules, measured points, progress, checkpoints and guards."""
