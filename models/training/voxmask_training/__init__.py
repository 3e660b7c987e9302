"""Makes voxmask's networks: data engine, training, export and evaluation."""
