"""What is inferred of a training set from a network: densities, clusters, noise, which labels are right."""
