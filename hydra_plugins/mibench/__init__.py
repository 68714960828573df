"""mibench's plugin for Hydra."""
