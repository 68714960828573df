"""Settings: how the target is trained and what of it can be observed."""
