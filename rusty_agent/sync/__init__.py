"""The blocking face: typed methods over one background event loop; no logic of its own."""
