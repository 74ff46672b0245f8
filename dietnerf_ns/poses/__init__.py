"""Camera poses of photos, found with pycolmap: the rooms of `dietnerf-poses`."""
