"""Turntables of a trained scene: cameras on a circle or an arc, rendered frames, and video files."""
