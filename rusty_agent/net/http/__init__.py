"""HTTP: the only door to aiohttp."""
