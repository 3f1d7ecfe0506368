"""From a source of images to batches: sources, long tail, noise, manifest, data sets, pools, batches."""
