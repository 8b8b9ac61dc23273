"""What experiments are made of, each a small file: networks, training, probes and pictures. Imports torch."""
