"""Programs that are timed in a process of their own. Each prints one JSON object: what it measured of itself."""
