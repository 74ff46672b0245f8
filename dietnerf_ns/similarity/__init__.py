"""Does an encoder tell the views of one scene from those of others? The paper's figure for one's own scenes."""
