"""The page on which quotes light up in the passages that they were copied from."""
