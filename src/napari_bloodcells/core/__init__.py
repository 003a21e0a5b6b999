"""The core: torch and numpy only, no Qt, no napari, no typer.

Data flows one way: image -> boxes -> crops -> probabilities -> cells -> differential -> files.  One file, one noun.
"""
