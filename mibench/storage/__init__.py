"""What lies on the disk: artifacts, checkpoints, downloads."""
