"""What compiled kernels do on a layer, counted on the simulator: bytes, sectors, wavefronts, products.

Small sizes are simulated with the code that the layer's own size compiles to, and a stated rule leads from their counts
to those of the layer (`rule`). Counted, not measured: no GPU takes part.
"""
