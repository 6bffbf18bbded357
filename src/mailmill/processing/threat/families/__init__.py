"""What is looked for: one module for each family of detectors, each with a tuple ``DETECTORS``."""
