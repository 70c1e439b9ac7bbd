"""Reports about networks and runs: costs per layer, accuracy, comparisons, plots and HTML.

Nothing here trains a network or changes a published version."""
