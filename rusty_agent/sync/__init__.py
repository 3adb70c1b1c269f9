"""The blocking face: typed methods that run on one background event loop, without logic of their own."""
