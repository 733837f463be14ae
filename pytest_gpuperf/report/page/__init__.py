"""The page of a run: one file of HTML and SVG, which loads nothing."""
