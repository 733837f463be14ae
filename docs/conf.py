"""The site: ``sphinx-build docs site``, with the extra ``docs`` installed."""

project = "pytest-gpuperf"
extensions = ["myst_parser"]
html_theme = "furo"
html_title = project
myst_heading_anchors = 4
exclude_patterns = ["studies/recordings"]
