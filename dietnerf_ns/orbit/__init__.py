"""A turntable of a trained scene: its cameras, its frames, its files."""
