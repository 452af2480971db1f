"""Label Studio → data set version → checkpoint."""
