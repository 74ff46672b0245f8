"""Whether an encoder separates the views of one scene from those of others: the paper's figure for a user's photos."""
