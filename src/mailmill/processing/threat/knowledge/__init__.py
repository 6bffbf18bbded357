"""What detectors know: lists. Data only."""
