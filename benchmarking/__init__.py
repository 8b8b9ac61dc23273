"""What bench.py is made of: cases, opponents, checks, timing, records; and the host-cost benchmark."""
